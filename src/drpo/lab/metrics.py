"""What a run comes to, from its records alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from drpo.collapse import LAST, has_collapsed
from drpo.intervals import accuracy_interval

Record = dict[str, Any]
#: Parts of a run whose mean rewards show a collapse.
TENTHS = 10


class Measure(NamedTuple):
    """A metric that arms can be compared by: its name in a sentence, and whether more is better."""

    label: str
    more_is_better: bool = True


#: What a study may name as its metric, or a hypothesis as its own.
METRICS = {
    "final_accuracy": Measure("final accuracy"),
    "area": Measure("area under the accuracy curve"),
    "best_accuracy": Measure("best accuracy"),
    "drawdown": Measure("largest drawdown", more_is_better=False),
    "training_reward": Measure("mean training reward"),
    "late_reward": Measure("mean training reward of the second half"),
    "shift": Measure("mean |π − μ|", more_is_better=False),
    "shift_p99": Measure("p99 |π − μ|", more_is_better=False),
    "entropy": Measure("entropy"),
}
#: Those of them that are shares of held-out responses.
ACCURACIES = frozenset({"final_accuracy", "area", "best_accuracy", "drawdown"})
#: Means over a run's updates, by tokens: what the trust region met and did.
ALONG = (
    "reward",
    "shift",
    "shift_p99",
    "beyond_delta",
    "beyond_delta_positive",
    "beyond_delta_negative",
    "corrective_share",
    "corrective_share_positive",
    "corrective_share_negative",
    "masked_share",
    "mismatch",
    "mismatch_p95",
    "k3_kl",
    "entropy",
    "rare_share",
    "gradient_norm",
    "response_length",
    "truncated_share",
)
#: Those of them whose course over training a report shows.
COURSES = ("beyond_delta", "corrective_share", "reward")
#: The largest over a run's updates.
HIGHEST = ("mismatch_max", "ratio_max", "shift_max")


def evaluation_steps(steps: int, every: int) -> list[int]:
    """After which steps a run is evaluated."""
    between = range(every, steps, every) if every else ()
    return [0, *between, steps]


def accuracy_curve(evaluations: Iterable[Record], steps: Sequence[int], failed: bool) -> list[tuple[int, float]]:
    """(step, held-out accuracy) of the planned ``steps``; for a run that ``failed``, 0 for each that it did not reach:
    what broke down has nothing to deploy, and leaving it out would flatter its arm."""
    found = {record["step"]: record["accuracy"] for record in evaluations}
    curve = [(step, found[step]) for step in steps if step in found]
    return curve + [(step, 0.0) for step in steps if step > max(found, default=-1)] if failed else curve


def accuracy_metrics(
    curve: Sequence[tuple[int, float]], evaluations: Iterable[Record] = (), last: int = LAST
) -> Record:
    """Final, mean, best accuracy, drawdown and collapse of an :func:`accuracy_curve`; empty for an empty one.

    ``final_accuracy`` is the mean of the ``last`` evaluations after training began, ``area`` the area under the
    curve by steps as a mean height, ``drawdown`` the deepest fall below the best so far; whether it ``collapsed`` says
    :func:`drpo.collapse.has_collapsed`.

    Args:
        curve: (step, accuracy).
        evaluations: the records behind it, with their samples; a step without one is certain.
        last: evaluations that make the final accuracy.
    """
    if not curve:
        return {}
    steps, values = zip(*curve, strict=True)
    trained = values[1:] or values
    final = math.fsum(trained[-last:]) / len(trained[-last:])
    pieces = [(b - a) * (x + y) / 2 for a, b, x, y in zip(steps, steps[1:], values, values[1:], strict=False)]
    found = {record["step"]: accuracy_interval(record) for record in evaluations}
    intervals = [found.get(step, (value, value)) for step, value in curve] if found else ()
    best, drawdown = 0.0, 0.0
    for value in values:
        best = max(best, value)
        drawdown = max(drawdown, best - value)
    return {
        "accuracy_before": values[0],
        "final_accuracy": final,
        "area": math.fsum(pieces) / (steps[-1] - steps[0]) if len(steps) > 1 else values[0],
        "best_accuracy": best,
        "drawdown": drawdown,
        "collapsed": has_collapsed(values, intervals),
    }


def reward_metrics(updates: Sequence[Record], steps: int, failed: bool) -> Record:
    """``training_reward``, the mean over the run's ``steps`` of the batch's mean reward: 0 for each step that a run did
    not reach that ``failed``. ``late_reward``, the same over the steps after the first half (``steps`` // 2), None
    where a run has not come so far. ``reward_collapsed``: whether its means by tenths of the run did
    (:func:`drpo.collapse.has_collapsed`). Empty without a reward.
    """
    rewards = [value for _, value in by_step("reward", updates, weight="sequences")]
    if not rewards:
        return {}
    rewards += [0.0] * (steps - len(rewards) if failed else 0)
    late = rewards[steps // 2 :]
    width = max(1, round(steps / TENTHS))
    tenths = [rewards[start : start + width] for start in range(0, len(rewards), width)]
    means = [math.fsum(tenth) / len(tenth) for tenth in tenths]
    return {
        "training_reward": math.fsum(rewards) / len(rewards),
        "late_reward": math.fsum(late) / len(late) if late else None,
        "reward_collapsed": has_collapsed(means),
    }


def tokens_to(target: float, curve: Sequence[tuple[int, float]], updates: Sequence[Record]) -> int | None:
    """Response tokens trained on when an evaluation first reached ``target``; None if none did."""
    step = next((step for step, accuracy in curve if accuracy >= target), None)
    return None if step is None else sum(record["tokens"] for record in updates if record["step"] <= step)


def by_step(name: str, updates: Sequence[Record], weight: str = "tokens") -> list[tuple[int, float]]:
    """(step, mean over its updates, by their ``weight``) of a figure, where it exists."""
    steps: dict[int, list[Record]] = {}
    for record in updates:
        steps.setdefault(record["step"], []).append(record)
    found = ((step, _token_mean(name, records, weight)) for step, records in steps.items())
    return [(step, value) for step, value in found if value is not None]


def _token_mean(name: str, updates: Sequence[Record], weight: str = "tokens") -> float | None:
    known = [(record[name], record.get(weight, 1)) for record in updates if record.get(name) is not None]
    total = sum(share for _, share in known)
    return math.fsum(value * share for value, share in known) / total if total else None


def update_metrics(updates: Sequence[Record]) -> Record:
    """Means by tokens, and maxima, over a run's updates; a figure that no update has is None."""
    found: Record = {"tokens": sum(record["tokens"] for record in updates)}
    found |= {name: _token_mean(name, updates) for name in ALONG}
    for name in HIGHEST:
        found[name] = max((record[name] for record in updates if record.get(name) is not None), default=None)
    return found


def measured_seconds(updates: Iterable[Record], evaluations: Iterable[Record]) -> float:
    """What sampling, grading, training and evaluation took together."""
    training = sum(sum(record["timing"][part] for part in ("sampling", "grading", "training")) for record in updates)
    return training + sum(record["timing"]["seconds"] for record in evaluations)
