"""When a run has collapsed: the one definition, for stopping early, for a run's outcome, and for studies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from drpo.intervals import Z_95, accuracy_interval, difference_interval

Record = Mapping[str, Any]
Interval = tuple[float, float]

#: Evaluations whose mean is the final accuracy.
LAST = 3
#: Of the best accuracy, what is left after a collapse at most.
LEFT = 0.5


def has_collapsed(accuracies: Sequence[float], intervals: Sequence[Interval | None] = ()) -> bool:
    """Whether held-out accuracy fell to half of its best or less, stays there, and chance does not explain it.

    The mean of the last three evaluations after training began is below half of the best accuracy so far, the last one
    is at most half of it, and there are two at least. The difference between the last one and the best is beyond its
    confidence interval, at 95 % for all pairs of evaluations together (Bonferroni): the best of many is high by chance,
    and every evaluation is a further look. So a small held-out set, whose intervals are wide, makes no collapse.

    Args:
        accuracies: of every evaluation in order, the one before training first.
        intervals: their 95 % confidence intervals, or None where one is not known; empty: none is, and the fall alone
            counts.
    """
    trained = accuracies[1:]
    if len(trained) < 2:
        return False
    best = max(accuracies)
    fell = math.fsum(trained[-LAST:]) / len(trained[-LAST:]) < LEFT * best and accuracies[-1] <= LEFT * best
    if not fell or not intervals:
        return fell
    first = accuracies.index(best)
    before, after = intervals[first], intervals[-1]
    if before is None or after is None:
        return fell
    wider = NormalDist().inv_cdf(1 - 0.025 / len(accuracies) ** 2) / Z_95
    _, _, high = difference_interval(_widened(best, before, wider), _widened(accuracies[-1], after, wider))
    return high < 0


def collapsed_run(evaluations: Iterable[Record]) -> bool:
    """:func:`has_collapsed` of the evaluations that a run recorded."""
    measured = [record for record in evaluations if record.get("accuracy") is not None]
    return has_collapsed(
        [record["accuracy"] for record in measured], [accuracy_interval(record) for record in measured]
    )


def _widened(value: float, interval: Interval, factor: float) -> tuple[float, float, float]:
    low, high = interval
    return value, max(0.0, value - factor * (value - low)), min(1.0, value + factor * (high - value))
