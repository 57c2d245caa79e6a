"""What is compared: settings, arms with grids of equal size, seeds; and which runs that makes.

Every arm is tuned over its thresholds and the setting's learning rates on seeds of its own, then run on the evaluation
seeds at the pair that did best and, so that rates are compared too, at the rate that all arms share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drpo.errors import DataError
from drpo.objectives import Objective, make_objective
from examples.long_tail.environment import Space
from examples.long_tail.training import Schedule


@dataclass(frozen=True)
class Arm:
    """An objective and the thresholds that it may choose from; ``parameters`` of one threshold make it."""

    objective: str
    thresholds: tuple[float, ...]
    parameters: Callable[[float], dict[str, Any]]

    def make(self, threshold: float) -> Objective:
        return make_objective(self.objective, **self.parameters(threshold))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A space, a policy, and the learning rates that every arm may choose from."""

    space: Space
    policy: str
    learning_rates: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long the runs are, and on which seeds."""

    schedule: Schedule
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """What a run is but for its seed. An arm without a threshold has 0."""

    arm: str
    threshold: float
    learning_rate: float


RATIOS = (0.2, 1.0, 5.0, 25.0)
SHIFTS = (0.002, 0.02, 0.15, 0.6)
NATS = (0.002, 0.01, 0.05, 0.5)
#: The paper's own DRPO setting is an arm of its own: it bounds nothing.
PAPER = "drpo_12.5"
ARMS = {
    "surrogate": Arm("surrogate", (0.0,), lambda _: {}),
    # A ratio is above 0 by itself, so that a bound of more than 1 below is none.
    "ppo": Arm("ppo", RATIOS, lambda bound: {"ratio_low": min(bound, 1.0), "ratio_high": bound}),
    "grpo": Arm("grpo", RATIOS, lambda bound: {"ratio_low": 0.2, "ratio_high": bound}),
    "spo": Arm("spo", RATIOS, lambda bound: {"epsilon": bound}),
    "dppo_tv": Arm("dppo_tv", SHIFTS, lambda bound: {"delta": bound}),
    "dppo_kl": Arm("dppo_kl", NATS, lambda bound: {"kl_max": bound}),
    "drpo": Arm("drpo", SHIFTS, lambda bound: {"delta": bound}),
    PAPER: Arm("drpo", (12.5,), lambda bound: {"delta": bound}),
}
#: (ours, theirs): ours is better. Those that bound |π − μ| (or the binary KL) against the others.
HYPOTHESES = [
    *(("drpo", other) for other in ("surrogate", "ppo", "grpo", "spo", "dppo_tv", "dppo_kl", PAPER)),
    *(("dppo_tv", other) for other in ("surrogate", "ppo", "grpo", "spo")),
]

TAIL = Space(actions=10_000, zipf=1.0)
SHORT = Space(actions=10, zipf=0.0)
SETTINGS = {
    "tail-linear": Setting(space=TAIL, policy="linear", learning_rates=(0.01, 0.03, 0.1)),
    "tail-mlp": Setting(space=TAIL, policy="mlp", learning_rates=(0.003, 0.01, 0.03)),
    "short-linear": Setting(space=SHORT, policy="linear", learning_rates=(0.03, 0.1, 0.3)),
    "short-mlp": Setting(space=SHORT, policy="mlp", learning_rates=(0.01, 0.03, 0.1)),
}
PLAN = Plan(
    schedule=Schedule(log=4096, batch=128, epochs=3, measurements=6, jury=256),
    tuning_seeds=(1000, 1001),
    seeds=tuple(range(10)),
)
QUICK = Plan(
    schedule=Schedule(log=512, batch=128, epochs=2, measurements=4, jury=64), tuning_seeds=(1000,), seeds=(0, 1, 2)
)

#: Mean score over seeds, of each cell.
Scores = Mapping[Cell, float]


def tuning_cells(setting: Setting) -> list[Cell]:
    """Every pair of a threshold and a rate, of every arm."""
    return [
        Cell(name, threshold, rate)
        for name, arm in ARMS.items()
        for threshold in arm.thresholds
        for rate in setting.learning_rates
    ]


def chosen(tuned: Scores) -> dict[str, Cell]:
    """Arm → the best of its cells; the first of equals."""
    return {name: _best(tuned, [cell for cell in tuned if cell.arm == name]) for name in ARMS}


def shared_rate(tuned: Scores) -> float:
    """The learning rate at which the arms, each at its best threshold there, do best on average."""
    rates = dict.fromkeys(cell.learning_rate for cell in tuned)
    return max(rates, key=lambda rate: float(np.mean([tuned[cell] for cell in at_rate(tuned, rate).values()])))


def at_rate(tuned: Scores, rate: float) -> dict[str, Cell]:
    """Arm → the best of its cells at a learning rate."""
    return chosen({cell: score for cell, score in tuned.items() if cell.learning_rate == rate})


def _best(tuned: Scores, cells: Sequence[Cell]) -> Cell:
    if not cells:
        raise DataError("an arm has no finished tuning run; run the study to its end")
    return max(cells, key=lambda cell: tuned[cell])
