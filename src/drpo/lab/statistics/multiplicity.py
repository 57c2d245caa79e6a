"""Several claims at once: Holm's correction, with tests that cannot both be wrong counted once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from drpo.lab.statistics.estimates import ALPHA


def holm(p_values: Sequence[float], groups: Sequence[int] | None = None) -> list[float]:
    """The p-values of several tests, adjusted so that all may be read at the same level (Holm, Scandinavian Journal of
    Statistics 6, 1979).

    At most one hypothesis of a group is true: "no difference" and "a difference of the margin or more" exclude each
    other. What remains of a group counts once (Shaffer, Journal of the American Statistical Association 81, 1986).

    Args:
        p_values: NaN, a test that could not be made, stays NaN and still counts.
        groups: the group of each; None: each is one of its own.
    """
    groups = list(range(len(p_values))) if groups is None else groups
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for index, remaining in _steps(p_values, groups):
        largest = max(largest, min(1.0, remaining * p_values[index]))
        adjusted[index] = largest
    return adjusted


def holm_levels(p_values: Sequence[float], groups: Sequence[int] | None = None, alpha: float = ALPHA) -> list[float]:
    """The level that each test faces: :func:`holm` rejects its hypothesis if and only if its p-value is at most that.
    ``alpha`` is the level of all together.
    """
    groups = list(range(len(p_values))) if groups is None else groups
    levels = []
    for own in range(len(p_values)):
        others = [math.nan if index == own else p for index, p in enumerate(p_values)]
        remaining = len(set(groups))
        rejected = set[int]()
        for index, remaining in _steps(others, groups):
            if others[index] > alpha / remaining:
                break
            rejected.add(index)
        else:
            remaining = len({groups[index] for index in range(len(groups)) if index not in rejected})
        levels.append(alpha / remaining)
    return levels


def _steps(p_values: Sequence[float], groups: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The tests by rising p-value, each with the number of groups that have a test left then."""
    left = set(range(len(p_values)))
    for index in sorted((i for i in left if not math.isnan(p_values[i])), key=lambda i: p_values[i]):
        yield index, len({groups[i] for i in left})
        left.discard(index)
