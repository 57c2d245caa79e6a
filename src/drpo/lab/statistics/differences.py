"""Differences of means between two arms, paired by seed: Student's test, and a test that assumes no distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np

from drpo.lab.statistics.estimates import MeanDifference, Strata, paired, t_quantile, t_tail

#: Pairs up to which every pattern of signs is tried; beyond, this many patterns are drawn.
EXACT, DRAWS = 16, 99_999


def paired_difference(ours: Strata, theirs: Strata) -> MeanDifference:
    """The mean over strata of ours − theirs by seed, with Student's interval and test on the seeds' differences.

    With several strata their variances are put together with Satterthwaite's degrees of freedom. Differences without
    any variance have no test: error 0 and a p-value of NaN.

    Raises:
        DataError: the strata or their seeds do not pair up.
    """
    differences = [one - other for one, other in paired(ours, theirs)]
    share = 1 / len(differences)
    value = sum(share * float(one.mean()) for one in differences)
    parts = [share**2 * float(one.var(ddof=1)) / len(one) for one in differences]
    error = math.sqrt(sum(parts))
    # Equal differences leave rounding behind.
    if error <= 1e-12 * max(1.0, *(float(np.abs(one).max()) for one in differences)):
        return MeanDifference(value, value, value, math.nan, 0.0, math.nan)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, differences, strict=True))
    reach = t_quantile(freedom) * error
    p = 2 * t_tail(abs(value) / error, freedom)
    return MeanDifference(value, value - reach, value + reach, p, error, freedom)


def sign_flip(ours: Strata, theirs: Strata, seed: int = 0) -> float:
    """The two-sided p-value of "each seed's difference is as likely to have the other sign": the share of patterns of
    signs whose mean difference is as large as the one found.

    It assumes no distribution, and cannot be below 2^(1 − S) with S pairs. Beyond ``EXACT`` pairs the patterns are
    drawn, with that seed.

    Source: Fisher, The Design of Experiments (1935), section 21.

    """
    pairs = paired(ours, theirs)
    weighted = np.concatenate([(one - other) / (len(one) * len(pairs)) for one, other in pairs])
    found = abs(weighted.sum()) * (1 - 1e-9)  # sums in another order round differently
    if len(weighted) <= EXACT:
        signs = np.array(list(itertools.product((1, -1), repeat=len(weighted) - 1)))  # the other half mirrors it
        return float((np.abs(weighted[0] + signs @ weighted[1:]) >= found).mean())
    generator = np.random.default_rng(seed)
    as_large = 0
    for rows in np.array_split(np.arange(DRAWS), 20):
        signs = generator.integers(0, 2, (len(rows), len(weighted))) * 2 - 1
        as_large += int((np.abs(signs @ weighted) >= found).sum())
    return (as_large + 1) / (DRAWS + 1)


def smallest_sign_flip(pairs: int) -> float:
    """The smallest p-value that :func:`sign_flip` can give with so many pairs."""
    return 2.0 ** (1 - pairs)
