"""Looking at the seeds before all of them have run, without more wrong verdicts: group sequential tests.

The level is spent by Lan's and DeMets' function of O'Brien's and Fleming's kind, 2 − 2Φ(z/√t) at the share t of the
seeds: almost nothing early, most of it at the last look.

Source: Lan and DeMets, Biometrika 70 (1983).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import numpy as np

from drpo.lab.statistics._scipy import optimize, stats

#: Of the numerical integration: points of the statistic at a look.
GRID = 201
#: Levels at which the boundaries are computed; between them they are interpolated.
LEVELS = np.concatenate([np.logspace(-12, -3, 37), np.logspace(-3, math.log10(0.98), 40)[1:]])
LOGS = np.log(LEVELS)


def spent(alpha: float, share: float) -> float:
    """The part of the one-sided level ``alpha`` that may be spent once this share of the seeds has run."""
    return float(2 * stats.norm.sf(stats.norm.isf(alpha / 2) / math.sqrt(share)))


def nominal_levels(shares: Sequence[float], alpha: float) -> list[float]:
    """The one-sided level of the test at each look, so that all looks together reject with probability ``alpha`` where
    nothing is to be found.

    Args:
        shares: of the seeds, at each look, rising; 1 at the last.
        alpha: one-sided, below 1.
    """
    levels, before = list[float](), 0.0
    paths = _Paths()
    for share in shares:
        quota = max(spent(alpha, share) - before, 0.0)
        before += quota
        bound = paths.bound(share, quota)
        levels.append(float(stats.norm.sf(bound)))
        paths = paths.kept(share, bound)
    return levels


@dataclass(frozen=True)
class _Paths:
    """The Brownian motions that no look has rejected yet: their ``density`` at ``values``, at the time ``share``."""

    share: float = 0.0
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    density: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def bound(self, share: float, quota: float) -> float:
        """What the standardized motion exceeds at ``share`` with probability ``quota``."""
        if not self.share or not quota:
            return float(stats.norm.isf(quota))
        step = math.sqrt(share - self.share)

        def excess(z: float) -> float:
            beyond = stats.norm.sf((z * math.sqrt(share) - self.values) / step)
            return float(np.trapezoid(self.density * beyond, self.values)) - quota

        return cast(float, optimize.brentq(excess, -8.0, 40.0))

    def kept(self, share: float, bound: float) -> _Paths:
        """Those that are below ``bound`` at ``share``."""
        root, step = math.sqrt(share), math.sqrt(share - self.share)
        values = np.linspace(-8 * root, min(bound, 8.0) * root, GRID)
        if not self.share:
            return _Paths(share, values, stats.norm.pdf(values / root) / root)
        moved = stats.norm.pdf((values[:, None] - self.values[None, :]) / step) / step
        return _Paths(share, values, np.asarray(np.trapezoid(self.density * moved, self.values, axis=1)))


def sequential_p(p_values: Sequence[float], shares: Sequence[float]) -> float:
    """The smallest one-sided level at which the looks so far reject: a p-value that takes part in Holm's correction as
    any other does.

    Source: Liu and Anderson, Statistics in Medicine 27 (2008); Maurer and Bretz, Statistics in Biopharmaceutical
    Research 5 (2013).

    Args:
        p_values: one-sided, of the test at each look so far.
        shares: of the seeds at every planned look.
    """
    if len(shares) == 1:
        return p_values[0]
    table = _table(tuple(shares))
    found = [
        float(np.interp(math.log(max(p, 1e-300)), table[:, look], LOGS, right=0.0))
        for look, p in enumerate(p_values)
        if not math.isnan(p)
    ]
    return min(1.0, math.exp(min(found))) if found else math.nan


def nominal_level(shares: Sequence[float], look: int, alpha: float) -> float:
    """One of :func:`nominal_levels`, by interpolation."""
    if len(shares) == 1:
        return alpha
    table = _table(tuple(shares))
    return math.exp(float(np.interp(math.log(alpha), LOGS, table[:, look])))


@cache
def _table(shares: tuple[float, ...]) -> np.ndarray:
    """``[levels, looks]``: the logarithms of the nominal levels at :data:`LEVELS`."""
    return np.log(np.maximum([nominal_levels(shares, alpha) for alpha in LEVELS], 1e-300))
