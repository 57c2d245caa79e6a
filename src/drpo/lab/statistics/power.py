"""The minimum detectable difference: the smallest true effect that these seeds find with 80 % power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from drpo.lab.statistics._scipy import optimize, stats
from drpo.lab.statistics.estimates import ALPHA, LEVEL, Estimate, checked, paired, t_quantile

POWER = 0.8
#: Of an integral over a distribution, taken at its quantiles.
POINTS = 400
QUANTILES = (np.arange(POINTS) + 0.5) / POINTS
#: Largest over smallest standard deviation up to which arms are pooled.
ALIKE = 2.0
#: Seeds from which on the differences themselves know their standard deviation well enough.
MANY = 10


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation with the degrees of freedom that it was estimated from."""

    value: float
    freedom: float

    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval (chi-squared; normal scores assumed)."""
        tails = stats.chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], self.freedom)
        low, high = self.value * np.sqrt(self.freedom / tails)
        return float(low), float(high)


def two_way_spread(scores: np.ndarray) -> Spread:
    """What is left of scores ``[A, S]`` once each arm's and each seed's mean is taken out (arm + seed model), as a
    standard deviation with (A − 1)(S − 1) degrees of freedom."""
    left = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    freedom = (scores.shape[0] - 1) * (scores.shape[1] - 1)
    return Spread(math.sqrt(float((left**2).sum()) / freedom), freedom)


def difference_spread(ours: np.ndarray, theirs: np.ndarray, arms: Sequence[np.ndarray] = ()) -> Spread:
    """The standard deviation over seeds of ours − theirs ``[S]`` in one setting.

    Five seeds know it badly: its own estimate has four degrees of freedom. It is therefore pooled over all arms of the
    setting that have these seeds (:func:`two_way_spread`), unless their standard deviations differ by more than a
    factor of two. Then it is Welch's, from the two arms alone as if they were not paired, or, from ``MANY`` seeds on,
    that of the differences. ``arms`` holds the scores of every arm of the setting, those two among them.
    """
    ((one, other),) = paired([ours], [theirs])
    scores = np.stack(checked(arms or [one, other]))
    spreads = scores.std(axis=1, ddof=1)
    if len(scores) > 2 and spreads.min() * ALIKE >= spreads.max() > 0:
        pooled = two_way_spread(scores)
        return Spread(math.sqrt(2) * pooled.value, pooled.freedom)
    if len(one) >= MANY:
        return Spread(float((one - other).std(ddof=1)), len(one) - 1)
    parts = np.array([one.var(ddof=1), other.var(ddof=1)])
    return Spread(math.sqrt(float(parts.sum())), float((len(one) - 1) * parts.sum() ** 2 / (parts**2).sum()))


def detectable(spreads: Sequence[Spread], sizes: Sequence[int], freedom: float, alpha: float = ALPHA) -> Estimate:
    """The minimum detectable difference of the mean over strata, with the interval that follows from that of the
    standard deviation.

    Args:
        spreads: of the differences by seed, one a stratum.
        sizes: seeds in each stratum.
        freedom: of the test that has to find it.
        alpha: the level of that test, two-sided; after Holm's correction it is the level that the claim faces.
    """
    share = 1 / len(spreads)
    parts = [share**2 * spread.value**2 / size for spread, size in zip(spreads, sizes, strict=True)]
    known = sum(parts) ** 2 / sum(part**2 / spread.freedom for part, spread in zip(parts, spreads, strict=True))
    error, needed = Spread(math.sqrt(sum(parts)), known), noncentrality(freedom, alpha=alpha)
    low, high = error.interval()
    return Estimate(needed * error.value, needed * low, needed * high)


def noncentrality(
    freedom: float, signal: np.ndarray | float = 1.0, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The true difference, in standard errors, that the two-sided test finds, with the right sign, with ``power``.

    Args:
        freedom: of Student's test.
        signal: what stretches the difference where that, too, varies from sample to sample: its quantiles ``[POINTS]``.
        alpha: the level of the test.
        power: the probability of finding it.
    """
    # The test's bar in units of the true error: what was estimated of it varies.
    bar = t_quantile(freedom, alpha) * np.sqrt(stats.chi2.ppf(QUANTILES, freedom) / freedom)[:, None]

    def missing(shift: float) -> float:
        return float(stats.norm.sf(bar - shift * np.atleast_1d(signal)).mean()) - power

    top = float(bar.max()) + 10
    while missing(top) < 0:
        top *= 2
    return cast(float, optimize.brentq(missing, 0.0, top))
