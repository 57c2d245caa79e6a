"""Do two arms vary as much over seeds?"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from drpo.errors import DataError
from drpo.lab.statistics._scipy import stats
from drpo.lab.statistics.estimates import ALPHA, Difference, paired, t_quantile
from drpo.lab.statistics.power import QUANTILES, noncentrality


def variance_ratio(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Var(ours)/Var(theirs) over seeds ``[S]`` that both have, with Pitman's and Morgan's interval and test, which
    allow for what the seeds have in common (normal scores assumed).

    Its p-value is for "the ratio is 1"; a ``value`` below 1 says that ours varies less.

    Source: Pitman, Biometrika 31 (1939); Morgan, Biometrika 31 (1939).
    """
    ((one, other),) = paired([ours], [theirs])
    size = len(one)
    if size < 3:
        raise DataError(f"a ratio of variances needs at least 3 seeds, got {size}")
    own, others = float(one.var(ddof=1)), float(other.var(ddof=1))
    if own == 0 or others == 0:
        ratio = math.nan if own == others else (0.0 if own == 0 else math.inf)
        return Difference(ratio, 0.0, math.inf, math.nan)
    ratio, common = own / others, float(np.corrcoef(one, other)[0, 1])
    spread = 1 + 2 * (1 - common**2) * t_quantile(size - 2) ** 2 / (size - 2)
    reach = math.sqrt(spread**2 - 1)
    correlation = np.corrcoef(one + other, one - other)[0, 1]
    strength = abs(float(correlation)) * math.sqrt((size - 2) / max(1 - float(correlation) ** 2, 1e-300))
    p = 2 * float(stats.t.sf(strength, size - 2))
    return Difference(ratio, ratio * (spread - reach), ratio * (spread + reach), p)


def detectable_ratio(size: int, correlation: float, alpha: float = ALPHA) -> float:
    """The ratio F above 1 that :func:`variance_ratio` finds with 80 % power; it finds 1/F as well.

    The test is that of the slope of sums on differences, whose noncentrality squared is (F − 1)²/(4 F (1 − ρ²)) for
    each degree of freedom of the sums.

    Args:
        size: seeds.
        correlation: ρ, of the two arms over seeds.
        alpha: the level of the test.
    """
    needed = 1 + 2 * (1 - correlation**2) * _strength(size, alpha) ** 2
    return needed + math.sqrt(needed**2 - 1)


@cache
def _strength(size: int, alpha: float) -> float:
    """ϱ/√(1 − ϱ²) of the correlation ϱ of sums and differences that Pitman's test finds with ``size`` seeds."""
    return noncentrality(size - 2, np.sqrt(stats.chi2.ppf(QUANTILES, size - 1)), alpha)
