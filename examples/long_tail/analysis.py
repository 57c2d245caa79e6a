"""What the runs of a setting say: each arm's scores over the evaluation seeds, and the verdict on each hypothesis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drpo.errors import DataError
from drpo.lab import statistics as stats
from examples.long_tail.records import Run, seeds_of
from examples.long_tail.runner import tuned_scores
from examples.long_tail.study import HYPOTHESES, Cell, Plan, at_rate, chosen, shared_rate


@dataclass(frozen=True)
class Evaluated:
    """A setting's runs on the evaluation seeds: each arm at its own best cell, and at the shared rate.

    Args:
        tuned: cell → mean final value over the tuning seeds.
        rate: the shared learning rate.
        best, shared: arm → its cell.
        runs: cell → its runs, in the order of the seeds.
    """

    tuned: Mapping[Cell, float]
    rate: float
    best: Mapping[str, Cell]
    shared: Mapping[str, Cell]
    runs: Mapping[Cell, Sequence[Run]]

    def scores(self, cell: Cell, score: Callable[[Run], float] = lambda run: run.final) -> np.ndarray:
        """``[S]``, a number of each run of ``cell``."""
        return np.array([score(run) for run in self.runs[cell]])


@dataclass(frozen=True)
class Verdict:
    """A hypothesis in one setting: final values of ours minus theirs, paired by seed.

    Args:
        p: the difference's, after Holm's correction over all hypotheses and settings.
        detectable: the minimum detectable difference at the level that this hypothesis faces.
        improvement: probability that a run of ours beats a run of theirs.
        spread: variance over seeds, ours to theirs.
    """

    setting: str
    ours: str
    theirs: str
    difference: stats.MeanDifference
    p: float
    detectable: stats.Estimate
    improvement: stats.Estimate
    spread: stats.Difference

    @property
    def said(self) -> str:
        if math.isnan(self.p) or self.p > stats.ALPHA:
            return "undecided"
        return "better" if self.difference.value > 0 else "worse"


def evaluate(runs: Sequence[Run], plan: Plan) -> Evaluated:
    """Put the runs of a setting in order.

    Raises:
        DataError: a run is missing.
    """
    tuned = tuned_scores(runs, plan)
    rate = shared_rate(tuned)
    best, shared = chosen(tuned), at_rate(tuned, rate)
    own = [run for run in runs if run.seed in plan.seeds]
    found = {cell: list(seeds_of(own, cell)) for cell in {*best.values(), *shared.values()}}
    for cell, of_cell in found.items():
        if tuple(run.seed for run in of_cell) != tuple(sorted(plan.seeds)):
            raise DataError(
                f"{cell} lacks runs: seeds {[run.seed for run in of_cell]} of {list(plan.seeds)}. Run the "
                "study to its end."
            )
    return Evaluated(tuned, rate, best, shared, found)


def verdicts(settings: Mapping[str, Evaluated], shared: bool = False) -> list[Verdict]:
    """Every hypothesis in every setting, at each arm's own best cell or at the shared rate."""
    pairs = [(name, found, *arms) for name, found in settings.items() for arms in HYPOTHESES]
    arms = [
        {name: found.scores(cell) for name, cell in (found.shared if shared else found.best).items()}
        for _, found, _, _ in pairs
    ]
    differences = [
        stats.paired_difference([scores[ours]], [scores[theirs]])
        for (_, _, ours, theirs), scores in zip(pairs, arms, strict=True)
    ]
    p_values = [difference.p for difference in differences]
    adjusted, levels = stats.holm(p_values), stats.holm_levels(p_values)
    return [
        _verdict(pairs[place], arms[place], differences[place], adjusted[place], levels[place])
        for place in range(len(pairs))
    ]


def _verdict(
    pair: tuple[str, Evaluated, str, str],
    arms: Mapping[str, np.ndarray],
    difference: stats.MeanDifference,
    p: float,
    level: float,
) -> Verdict:
    """One hypothesis.

    Args:
        pair: the setting, its runs, and the two arms.
        arms: scores by seed of every arm.
        difference: of the two.
        p: the difference's after the correction.
        level: what the p-value before it had to be at most.
    """
    name, _, ours, theirs = pair
    one, other = arms[ours], arms[theirs]
    spread = stats.difference_spread(one, other, list(arms.values()))
    return Verdict(
        name,
        ours,
        theirs,
        difference,
        p,
        stats.detectable([spread], [len(one)], len(one) - 1, level),
        stats.probability_of_improvement([one], [other]),
        stats.variance_ratio(one, other),
    )
