"""What a handful of seeds allows to say: estimates with intervals, tests, the minimum detectable difference.

Scores come in strata: one array ``[S]`` a setting, an entry a seed. Two arms that are compared have the same seeds in
the same order, so that they differ by seed in nothing but the arm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

import numpy as np

from drpo.errors import ConfigError, DataError
from drpo.installation import install

try:
    from scipy import optimize, stats
except ImportError as error:
    raise ConfigError(
        f"the lab's statistics need scipy, which cannot be loaded ({error}): " + install("train", "lab")
    ) from error

LEVEL = 0.95
DRAWS = 5_000
#: Of an integral over a distribution, taken at its quantiles.
POINTS = 400
QUANTILES = (np.arange(POINTS) + 0.5) / POINTS
#: Of the seeds, cut off at either end by the interquartile mean.
CUT = 0.25

Strata = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """One arm minus another, or the ratio of their variances, with the two-sided p-value of "no difference" and what is
    ``detectable``: the minimum detectable difference, or ratio above 1, which these seeds, with their spread and
    correlation, find with 80 % power."""

    p: float
    detectable: float

    def verdict(self, p: float | None = None, alpha: float = 1 - LEVEL) -> Literal["better", "worse", "not shown"]:
        """What may be said of the first arm; ``p`` takes the place of its own after a correction for several
        hypotheses."""
        if math.isnan(self.p) or (self.p if p is None else p) > alpha:
            return "not shown"
        return "better" if self.value > 0 else "worse"


def iqm(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """The interquartile mean: a quarter of the values, rounded down, is cut off at either end."""
    return stats.trim_mean(scores, CUT, axis=axis)


def interquartile_mean(strata: Strata, seed: int = 0) -> Estimate:
    """The interquartile mean over all strata's scores, each stratum's seeds drawn again within it.

    Source: Agarwal et al., arXiv:2108.13264, section 4.3; see :func:`bootstrap` for the interval.
    """
    strata = _checked(strata)

    def mean(drawn: list[np.ndarray]) -> np.ndarray:
        return iqm(np.concatenate([scores[seeds] for scores, seeds in zip(strata, drawn, strict=True)], axis=-1))

    return bootstrap([len(scores) for scores in strata], mean, seed)


def bootstrap(sizes: Sequence[int], statistic: Callable[[list[np.ndarray]], np.ndarray], seed: int = 0) -> Estimate:
    """A stratified bootstrap interval of ``statistic``, wide enough for few seeds.

    The plain percentile interval is too narrow for five seeds (it covers the mean in 84 of 100 experiments): drawing
    again from S values gives (S − 1)/S of their variance, and knows nothing of the variance's own uncertainty. The
    expanded one takes further quantiles, Φ(−t √(S/(S − 1))) with Student's t at S − 1 degrees of freedom a stratum.
    Source: Hesterberg, The American Statistician 69 (2015), section 5.2 (one stratum).

    Args:
        sizes: seeds in each stratum, at least 2.
        statistic: of which seeds were drawn, an array ``[D, S]`` of indices for each stratum, to ``[D]``.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    value = float(statistic([np.arange(size)[None] for size in sizes])[0])
    tail = _tail(sizes)
    drawn = statistic([generator.integers(0, size, (DRAWS, size)) for size in sizes])
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _tail(sizes: Sequence[int]) -> float:
    freedom = sum(size - 1 for size in sizes)
    shrunk = sum(sizes) / freedom
    return float(stats.norm.cdf(-_t(freedom) * math.sqrt(shrunk)))


def _t(freedom: float) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def paired_difference(ours: Strata, theirs: Strata) -> Difference:
    """The mean over strata of ours − theirs by seed, with Student's interval and test on the seeds' differences.

    With several strata their variances are put together with Satterthwaite's degrees of freedom.

    Raises:
        DataError: the strata or their seeds do not pair up.
    """
    differences = [one - other for one, other in _pairs(ours, theirs)]
    share = 1 / len(differences)
    value = sum(share * float(one.mean()) for one in differences)
    parts = [share**2 * float(one.var(ddof=1)) / len(one) for one in differences]
    error = math.sqrt(sum(parts))
    if error == 0:  # the seeds agree exactly
        return Difference(value, value, value, float(value == 0), 0.0)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, differences, strict=True))
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    reach = _t(freedom) * error
    return Difference(value, value - reach, value + reach, p, error * _noncentrality(freedom))


def _noncentrality(freedom: float, signal: np.ndarray | float = 1.0, power: float = 0.8) -> float:
    """The true difference, in standard errors, that the two-sided test finds, with the right sign, with ``power``.

    ``signal`` stretches it where that, too, varies from sample to sample: its quantiles ``[POINTS]``.
    """
    # The test's bar in units of the true error: what was estimated of it varies.
    bar = _t(freedom) * np.sqrt(stats.chi2.ppf(QUANTILES, freedom) / freedom)[:, None]

    def missing(shift: float) -> float:
        return float(stats.norm.sf(bar - shift * np.atleast_1d(signal)).mean()) - power

    top = float(bar.max()) + 10
    while missing(top) < 0:
        top *= 2
    return cast(float, optimize.brentq(missing, 0.0, top))


def probability_of_improvement(ours: Strata, theirs: Strata, seed: int = 0) -> Estimate:
    """The probability that a run of ours beats a run of theirs, ties counting half: the mean over strata of the
    Mann-Whitney statistic, with a :func:`bootstrap` interval over seeds (drawn in pairs).

    Source: Agarwal et al., arXiv:2108.13264, section 4.3.
    """
    pairs = _pairs(ours, theirs)

    def better(drawn: list[np.ndarray]) -> np.ndarray:
        wins = []
        for seeds, (one, other) in zip(drawn, pairs, strict=True):
            gap = one[seeds][..., :, None] - other[seeds][..., None, :]
            wins.append(((gap > 0) + 0.5 * (gap == 0)).mean(axis=(-1, -2)))
        return np.mean(wins, axis=0)

    found = bootstrap([len(one) for one, _ in pairs], better, seed)
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


def variance_ratio(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Var(ours)/Var(theirs) over seeds ``[S]`` that both have, with Pitman's and Morgan's interval and test, which
    allow for what the seeds have in common (normal scores assumed).

    Its p-value is for "the ratio is 1"; a ``value`` below 1 says that ours varies less. The detectable ratio F is above
    1, and 1/F as detectable: the test is that of the slope of sums on differences, whose noncentrality squared is
    (F − 1)²/(4 F (1 − ρ²)) for each degree of freedom of the sums, with the arms' correlation ρ.

    Source: Pitman, Biometrika 31 (1939); Morgan, Biometrika 31 (1939).
    """
    ((one, other),) = _pairs([ours], [theirs])
    size = len(one)
    if size < 3:
        raise DataError(f"a ratio of variances needs at least 3 seeds, got {size}")
    own, others = float(one.var(ddof=1)), float(other.var(ddof=1))
    if own == 0 or others == 0:
        ratio = math.nan if own == others else (0.0 if own == 0 else math.inf)
        return Difference(ratio, 0.0, math.inf, math.nan, math.nan)
    ratio, common = own / others, float(np.corrcoef(one, other)[0, 1])
    spread = 1 + 2 * (1 - common**2) * _t(size - 2) ** 2 / (size - 2)
    reach = math.sqrt(spread**2 - 1)
    correlation = np.corrcoef(one + other, one - other)[0, 1]
    strength = abs(float(correlation)) * math.sqrt((size - 2) / max(1 - float(correlation) ** 2, 1e-300))
    p = 2 * float(stats.t.sf(strength, size - 2))
    needed = 1 + 2 * (1 - common**2) * _strength(size) ** 2
    detectable = needed + math.sqrt(needed**2 - 1)
    return Difference(ratio, ratio * (spread - reach), ratio * (spread + reach), p, detectable)


@cache
def _strength(size: int) -> float:
    """ϱ/√(1 − ϱ²) of the correlation ϱ of sums and differences that Pitman's test finds with ``size`` seeds."""
    return _noncentrality(size - 2, np.sqrt(stats.chi2.ppf(QUANTILES, size - 1)))


def rate(count: int, of: int) -> Estimate:
    """A share with its exact (Clopper-Pearson) interval: of runs that collapsed, for example."""
    if not 0 <= count <= of or of == 0:
        raise DataError(f"{count} of {of} is no share")
    interval = stats.binomtest(count, of).proportion_ci(LEVEL, method="exact")
    return Estimate(count / of, float(interval.low), float(interval.high))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several hypotheses, adjusted so that all may be read at the same level (Holm, Scandinavian
    Journal of Statistics 6, 1979). NaN, a test that could not be made, stays NaN and still counts as a hypothesis."""
    order = sorted(range(len(p_values)), key=lambda index: (math.isnan(p_values[index]), p_values[index]))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for place, index in enumerate(order):
        if not math.isnan(p_values[index]):
            largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
            adjusted[index] = largest
    return adjusted


def _checked(strata: Strata) -> list[np.ndarray]:
    if not strata:
        raise DataError("no stratum was given; give an array of scores for each setting")
    arrays = [np.asarray(scores, dtype=np.float64) for scores in strata]
    for scores in arrays:
        if scores.ndim != 1 or len(scores) < 2:
            raise DataError(f"a stratum needs scores [S] of at least 2 seeds, got shape {scores.shape}")
        if not np.isfinite(scores).all():
            raise DataError("a score is not finite; a run that crashed has a score too (what it had reached, or 0)")
    return arrays


def _pairs(ours: Strata, theirs: Strata) -> list[tuple[np.ndarray, np.ndarray]]:
    one, other = _checked(ours), _checked(theirs)
    shapes = [len(scores) for scores in one], [len(scores) for scores in other]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"the arms do not pair up: seeds by stratum {shapes[0]} and {shapes[1]}. Compare runs of the "
            "same settings and seeds."
        )
    return list(zip(one, other, strict=True))
