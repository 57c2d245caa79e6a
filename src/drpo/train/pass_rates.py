"""Statistics of an evaluation: avg@k and pass@k, with intervals over problems.

A problem has n graded responses, c of them right. The problems are taken for a sample of all that could have been
asked, so that the intervals cover both the choice of problems and the sampling of responses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, variance
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over ``problems`` problems with its 95 % confidence interval, all in [0, 1]."""

    mean: float
    low: float
    high: float
    problems: int


def pass_at_k(graded: int, correct: int, k: int) -> float:
    """The unbiased estimate of the probability that at least one of k responses is right (Chen et al. 2021,
    arXiv:2107.03374, Eq. 1): 1 − C(n − c, k) / C(n, k).

    Args:
        graded: n ≥ k.
        correct: c, in [0, n].
        k: ≥ 1.
    """
    if not (1 <= k <= graded and 0 <= correct <= graded):
        raise ValueError(f"pass@k needs 1 ≤ k ≤ n and 0 ≤ c ≤ n; got k={k}, n={graded}, c={correct}")
    return 1 - math.comb(graded - correct, k) / math.comb(graded, k)


def powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, … up to ``limit``."""
    return [1 << power for power in range(limit.bit_length())]


def mean_estimate(values: Sequence[float], sizes: Sequence[float]) -> Estimate | None:
    """The mean of per-problem values in [0, 1], and Wilson's interval at their effective sample size.

    That size is p(1 − p) / (s²/m): how many independent right-or-wrong answers would leave the same standard error as
    these m values, with variance s². So the interval stays in [0, 1], and has a width where all m values are 0 or all
    are 1 (then the size is m). Student's quantile for m − 1 degrees of freedom stands instead of the normal one.

    Args:
        values: [m], one a problem.
        sizes: [m], the responses behind each; their sum bounds the effective sample size.

    Returns:
        None without a problem.
    """
    if not values:
        return None
    count, mean = len(values), fmean(values)
    size = float(count)
    if count > 1 and 0 < mean < 1:
        spread = variance(values) / count
        size = min(mean * (1 - mean) / spread, sum(sizes)) if spread > 0 else sum(sizes)
    low, high = _wilson(mean, size, _student_quantile(max(1, count - 1)))
    return Estimate(mean, low, high, count)


def pass_rates(counts: Sequence[tuple[int, int]], samples: int) -> dict[str, Any]:
    """What an evaluation record holds of them.

    Args:
        counts: (n, c) of each problem.
        samples: responses asked for; where grading failed, n is smaller.

    Returns:
        ``avg_at_k`` (k is ``samples``; the mean over problems of c / n) and ``pass_at_k`` (for k = 1, 2, 4, … up to
        ``samples``, as text), each with ``mean``, ``low``, ``high`` and ``problems``: those with n ≥ k. A k that no
        problem has n ≥ k for is left out.
    """

    def estimate(k: int) -> Estimate | None:
        enough = [(n, c) for n, c in counts if n >= k]
        return mean_estimate([pass_at_k(n, c, k) for n, c in enough], [n / k for n, _ in enough])

    by_k = {str(k): asdict(found) for k in powers_of_two(samples) if (found := estimate(k)) is not None}
    return {"avg_at_k": {"k": samples, **by_k["1"]} if "1" in by_k else None, "pass_at_k": by_k}


def _wilson(mean: float, size: float, quantile: float) -> tuple[float, float]:
    shrink = 1 + quantile**2 / size
    center = (mean + quantile**2 / (2 * size)) / shrink
    half = quantile / shrink * math.sqrt(mean * (1 - mean) / size + quantile**2 / (4 * size**2))
    # At a mean of exactly 0 or 1 rounding would leave the bound a hair away from it.
    return (0.0 if mean == 0 else max(0.0, center - half)), (1.0 if mean == 1 else min(1.0, center + half))


def _student_quantile(freedom: int) -> float:
    """Student's 97.5 % quantile by its expansion around the normal one: within 2 % from four degrees of freedom on."""
    z = NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
