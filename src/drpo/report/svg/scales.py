"""Axes: where a value lies between 0 and 1, and which round numbers to write beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Protocol


class Scale(Protocol):
    """A mapping from values to the unit interval, with its ticks."""

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high end; values beyond lie on the end."""
        ...

    def ticks(self) -> list[float]:
        """Round values to label, in order."""
        ...


class Linear:
    """From ``low`` to the first round number at or above ``high``."""

    def __init__(self, low: float, high: float, ticks: int = 4):
        span = max(high - low, abs(high) * 1e-6) or 1.0
        self.step = round_step(span / ticks)
        self.low = math.floor(low / self.step + 1e-9) * self.step
        self.high = max(math.ceil(high / self.step - 1e-9) * self.step, self.low + self.step)

    def place(self, value: float) -> float:
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [round_off(self.low + i * self.step, self.step) for i in range(count + 1)]


class Steps(Linear):
    """A count of steps: ends exactly at ``high``, and only whole numbers are labeled."""

    def __init__(self, low: float, high: float):
        super().__init__(low, high, ticks=5)
        self.step = max(1.0, self.step)
        self.low, self.high = low, max(high, low + 1)

    def ticks(self) -> list[float]:
        first = math.ceil(self.low / self.step)
        return [
            i * self.step for i in range(first, math.floor(self.high / self.step) + 1) if (i * self.step).is_integer()
        ]


class Log:
    """Over the positive ``values``, between stops of 1, 2 and 5; zeros lie on a floor of their own."""

    def __init__(self, values: Iterable[float]):
        values = list(values)
        positive = [value for value in values if value > 0] or [1.0]
        low, high = _stop_below(min(positive)), _stop_above(max(positive))
        if low == high:
            low, high = _stop_below(low * 0.9), _stop_above(high * 1.1)
        self.low, self.high = math.log10(low), math.log10(high)
        #: Share of the height below the smallest positive stop, where zeros lie.
        self.floor = 0.14 if any(value <= 0 for value in values) else 0.0

    def place(self, value: float) -> float:
        if value <= 0:
            return 0.0
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.floor + (1 - self.floor) * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        zero = [0.0] if self.floor else []
        decades = self.high - self.low
        if decades < 2.2:
            exponents = range(math.floor(self.low) - 1, math.ceil(self.high) + 1)
            stops = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
            return zero + [stop for stop in stops if self.low - 1e-9 <= math.log10(stop) <= self.high + 1e-9]
        stride = math.ceil(decades / 5.5)
        return zero + [10.0**e for e in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1, stride)]


class Stops:
    """Evenly spaced stops at the given values, however far apart these are: for settings chosen by hand.

    The ends are set in by ``margin``, so that marks beside a stop stay inside.
    """

    margin = 0.05

    def __init__(self, values: Iterable[float]):
        self.stops = sorted(set(values))

    def place(self, value: float) -> float:
        return self.margin + (1 - 2 * self.margin) * self._share(value)

    def _share(self, value: float) -> float:
        if value <= self.stops[0]:
            return 0.0
        for index, (left, right) in enumerate(pairwise(self.stops)):
            if value <= right:
                return (index + (value - left) / (right - left)) / (len(self.stops) - 1)
        return 1.0

    def ticks(self) -> list[float]:
        return list(self.stops)


def round_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))


def round_off(value: float, step: float) -> float:
    """``value`` without the rounding noise of adding steps."""
    return round(value / step * 1e6) / 1e6 * step if step else value


def _stop_below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (5, 2, 1, 0.5) if m * power <= value * (1 + 1e-9))


def _stop_above(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9))
