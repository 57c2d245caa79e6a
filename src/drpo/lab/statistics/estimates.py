"""Estimates with 95 % confidence intervals, and the scores that they are made of.

Scores come in strata: one array ``[S]`` a setting, an entry a seed. Two arms that are compared have the same seeds in
the same order, so that they differ by seed in nothing but the arm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drpo.errors import DataError
from drpo.lab.statistics._scipy import special, stats

LEVEL = 0.95
#: Of all verdicts of a family together: the chance that any of them is wrong.
ALPHA = 0.05

Strata = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """One arm minus another, or the ratio of their variances, with the two-sided p-value of "no difference"."""

    p: float


@dataclass(frozen=True, slots=True)
class MeanDifference(Difference):
    """A difference of means, with its standard ``error`` and the degrees of ``freedom`` of Student's distribution."""

    error: float
    freedom: float

    def p_above(self, bound: float = 0.0) -> float:
        """The one-sided p-value of "the true difference is ``bound`` or less"; NaN without an error."""
        return t_tail((self.value - bound) / self.error, self.freedom) if self.error else math.nan

    def p_below(self, bound: float = 0.0) -> float:
        """The one-sided p-value of "the true difference is ``bound`` or more"; NaN without an error."""
        return t_tail((bound - self.value) / self.error, self.freedom) if self.error else math.nan

    def p_equivalent(self, margin: float) -> float:
        """The p-value of "the true difference is ``margin`` or more, in either direction": two one-sided tests.

        Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987).
        """
        return max(self.p_above(-margin), self.p_below(margin))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The confidence interval of level 1 − ``alpha``."""
        reach = t_quantile(self.freedom, alpha) * self.error
        return self.value - reach, self.value + reach


def mean(scores: np.ndarray) -> Estimate:
    """The mean of ``scores`` ``[S]`` with Student's interval."""
    (scores,) = checked([scores])
    value = float(scores.mean())
    reach = t_quantile(len(scores) - 1) * float(scores.std(ddof=1)) / math.sqrt(len(scores))
    return Estimate(value, value - reach, value + reach)


def rate(count: int, of: int) -> Estimate:
    """A share with its exact (Clopper-Pearson) interval: of runs that collapsed, for example."""
    if not 0 <= count <= of or of == 0:
        raise DataError(f"count must be between 0 and total, got {count} of {of}")
    interval = stats.binomtest(count, of).proportion_ci(LEVEL, method="exact")
    return Estimate(count / of, float(interval.low), float(interval.high))


def t_quantile(freedom: float, alpha: float = ALPHA) -> float:
    """What |t| exceeds with probability ``alpha``."""
    return -float(special.stdtrit(freedom, alpha / 2))


def t_tail(value: float, freedom: float) -> float:
    """The probability that Student's t is above ``value``."""
    return float(special.stdtr(freedom, -value))


def checked(strata: Strata) -> list[np.ndarray]:
    """The strata as float64.

    Raises:
        DataError: there is none, one has fewer than two seeds, or a score is not finite.
    """
    if not strata:
        raise DataError("no stratum was given; give an array of scores for each setting")
    arrays = [np.asarray(scores, dtype=np.float64) for scores in strata]
    for scores in arrays:
        if scores.ndim != 1 or len(scores) < 2:
            raise DataError(f"a stratum needs scores [S] of at least 2 seeds, got shape {scores.shape}")
        if not np.isfinite(scores).all():
            raise DataError("a score is not finite; a run that crashed has a score too (what it had reached, or 0)")
    return arrays


def paired(ours: Strata, theirs: Strata) -> list[tuple[np.ndarray, np.ndarray]]:
    """Both arms' scores by stratum.

    Raises:
        DataError: the strata or their seeds do not pair up.
    """
    one, other = checked(ours), checked(theirs)
    shapes = [len(scores) for scores in one], [len(scores) for scores in other]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"the arms do not pair up: seeds by stratum {shapes[0]} and {shapes[1]}. Compare runs of the "
            "same settings and seeds."
        )
    return list(zip(one, other, strict=True))
