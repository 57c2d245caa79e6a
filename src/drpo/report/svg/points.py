"""Points of curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from drpo.report.html.quantities import mean


class Point(NamedTuple):
    """One place of a curve: a value, None where it does not exist, and the range it stands for."""

    x: float
    value: float | None
    low: float | None
    high: float | None


def known(points: Sequence[Point]) -> list[float]:
    """The values that exist."""
    return [point.value for point in points if point.value is not None]


def summarize(x: float, values: Sequence[float]) -> Point:
    """One point for several values."""
    if not values:
        return Point(x, None, None, None)
    return Point(x, mean(values), min(values), max(values))
