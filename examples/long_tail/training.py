"""Off-policy learning from a fixed log: several epochs of minibatches, so that π differs more and more from μ."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from drpo.aggregation import aggregate
from drpo.batch import TokenBatch
from drpo.diagnostics import diagnose
from drpo.errors import DataError
from drpo.objectives import Objective
from examples.long_tail.environment import Bandit, Jury, Log, Space, make_bandit, make_jury, make_log
from examples.long_tail.policy import Policy

#: What is kept of drpo.diagnose.
FIGURES: tuple[str, ...] = ("shift", "shift_max", "ratio_max", "masked_share", "corrective_share")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How much is logged, learned and measured.

    Args:
        log: interactions.
        batch: interactions an update.
        epochs: passes over the log.
        measurements: of the true value, evenly over the updates, the last one after the last update; one more is made
            before the first.
        jury: held-out contexts.
    """

    log: int
    batch: int
    epochs: int
    measurements: int
    jury: int

    @property
    def updates(self) -> int:
        return self.epochs * (self.log // self.batch)


@dataclass(frozen=True)
class World:
    """What all runs of a seed have in common."""

    bandit: Bandit
    log: Log
    jury: Jury


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Args:
        curve: true expected rewards, of μ first; 0 from where the run crashed: such a policy serves nothing.
        figures: how far π went from μ on the logged actions, and what the objective made of it; NaN after a crash.
        reason: why it crashed, or "".
    """

    curve: list[float]
    figures: dict[str, float]
    reason: str = ""


@functools.lru_cache(maxsize=2)
def make_world(space: Space, schedule: Schedule, seed: int) -> World:
    """Truth, log and held-out contexts of a seed."""
    generator = torch.Generator().manual_seed(seed)
    bandit = make_bandit(space, generator)
    return World(bandit, make_log(bandit, schedule.log, generator), make_jury(bandit, schedule.jury, generator))


def log_batch(policy: Policy, log: Log, rows: torch.Tensor) -> TokenBatch:
    """The logged interactions ``rows`` ``[N]`` under ``policy``: each a sequence of one token.

    Raises:
        DataError: the policy's log-probabilities are not finite.
    """
    logprobs = policy(log.contexts[rows]).gather(1, log.actions[rows, None]).squeeze(1)
    return TokenBatch(logprobs, log.behavior_logprobs[rows], log.advantages[rows], sequence_ids=torch.arange(len(rows)))


def train(
    world: World, kind: str, objective: Objective, learning_rate: float, schedule: Schedule, seed: int
) -> Outcome:
    """One run with Adam. The seed gives the order of the log and the network's weights, whatever the objective."""
    generator = torch.Generator().manual_seed(seed)
    policy = Policy(world.bandit, kind, generator)
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate, fused=True)
    due = {round(schedule.updates * (i + 1) / schedule.measurements) for i in range(schedule.measurements)}
    curve = [_value(policy, world.jury)]
    try:
        for update, rows in enumerate(_minibatches(schedule, generator), start=1):
            batch = log_batch(policy, world.log, rows)
            aggregate(objective(batch).loss, batch, mode="token_mean").backward()
            optimizer.step()
            optimizer.zero_grad()
            if update in due:
                curve.append(_value(policy, world.jury))
        figures = _figures(policy, objective, world.log)
    except DataError as error:
        curve += [0.0] * (1 + schedule.measurements - len(curve))
        return Outcome(curve, dict.fromkeys(FIGURES, math.nan), str(error))
    return Outcome(curve, figures)


def _minibatches(schedule: Schedule, generator: torch.Generator) -> list[torch.Tensor]:
    """``[batch]`` rows of the log for each update; what does not fill a minibatch waits for the next shuffle."""
    whole = schedule.log // schedule.batch * schedule.batch
    orders = [torch.randperm(schedule.log, generator=generator)[:whole] for _ in range(schedule.epochs)]
    return [rows for order in orders for rows in order.split(schedule.batch)]


@torch.no_grad()
def _value(policy: Policy, jury: Jury) -> float:
    value = jury.value(policy(jury.contexts))
    if not math.isfinite(value):
        raise DataError("the policy's probabilities are not finite")
    return round(value, 6)  # what float32 knows, and what the table of runs can hold


def _figures(policy: Policy, objective: Objective, log: Log, sample: int = 1024) -> dict[str, float]:
    with torch.no_grad():
        batch = log_batch(policy, log, torch.arange(min(sample, len(log.actions))))
    found = diagnose(batch, objective=objective)
    return {name: found[name].item() for name in FIGURES}
