"""The probability that a run of one arm beats a run of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from drpo.lab.statistics._scipy import optimize, stats
from drpo.lab.statistics.estimates import LEVEL, Estimate, Strata, paired


def probability_of_improvement(ours: Strata, theirs: Strata) -> Estimate:
    """The probability that a run of ours beats a run of theirs, ties counting half: the mean over strata of the
    Mann-Whitney statistic. Its interval keeps its width where the arms do not overlap; seeds in common make it wider
    than it has to be.

    The ends solve |θ − found| = z √V(θ) with V(θ) = θ(1 − θ)[1 + M(1 − θ)/(2 − θ) + Mθ/(1 + θ)]/S², M = S − 1, for
    each stratum of S seeds.

    Source: Newcombe, Statistics in Medicine 25 (2006), 559-573, method 5; the statistic is Agarwal et al.,
    arXiv:2108.13264, section 4.3.
    """
    pairs = paired(ours, theirs)
    found = float(np.mean([_wins(one, other) for one, other in pairs]))
    bound = float(stats.norm.isf((1 - LEVEL) / 2))
    sizes = [len(one) for one, _ in pairs]

    def gap(theta: float) -> float:
        variance = sum(_variance(theta, size) for size in sizes) / len(sizes) ** 2
        return (theta - found) ** 2 - bound**2 * variance

    return Estimate(found, _end(gap, 0.0, found), _end(gap, 1.0, found))


def _end(gap: Callable[[float], float], outermost: float, found: float) -> float:
    """Between ``found`` and the end of the scale, where the gap changes its sign; the end itself where it does not."""
    inside = found + 1e-9 * (0.5 - found)
    if gap(outermost) * gap(inside) >= 0:
        return outermost
    return cast(float, optimize.brentq(gap, min(outermost, inside), max(outermost, inside)))


def _wins(one: np.ndarray, other: np.ndarray) -> float:
    gap = one[:, None] - other[None, :]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())


def _variance(theta: float, size: int) -> float:
    more = size - 1
    return theta * (1 - theta) * (1 + more * (1 - theta) / (2 - theta) + more * theta / (1 + theta)) / size**2
