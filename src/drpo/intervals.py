"""Confidence intervals of shares, and of the difference between two."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

#: The two-sided 95 % quantile of the normal distribution.
Z_95 = 1.959963984540054


def wilson_interval(correct: float, samples: float, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share, ``correct`` out of ``samples``; 95 % unless ``z`` says otherwise.

    Source: E. B. Wilson (1927), J. Am. Stat. Assoc. 22:209. It assumes independent samples.

    Raises:
        ValueError: ``samples`` is not positive, or ``correct`` is not between 0 and it.
    """
    if samples <= 0 or not 0 <= correct <= samples:
        raise ValueError(f"0 <= correct <= samples and samples > 0 are needed, got {correct} of {samples}")
    share, spread = correct / samples, z * z / samples
    center = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # At 0 and at 1 the bound is exact, and rounding must not push it out.
    return (0.0 if correct == 0 else center - half), (1.0 if correct == samples else center + half)


def difference_interval(
    before: tuple[float, float, float], after: tuple[float, float, float]
) -> tuple[float, float, float]:
    """``after`` − ``before``, each an estimate with its lower and upper bound, and the bounds of the difference.

    Source: R. G. Newcombe (1998), Stat. Med. 17:873, method 10, with any two intervals of one level in the place of
    Wilson's (Zou and Donner 2008). It assumes that the two are independent: with the same problems in both it is too
    wide.
    """
    (p, p_low, p_high), (q, q_low, q_high) = before, after
    difference = q - p
    return (
        difference,
        difference - math.hypot(q - q_low, p_high - p),
        difference + math.hypot(q_high - q, p - p_low),
    )


def accuracy_interval(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95 % confidence interval of an evaluation's accuracy: the recorded one, over problems (``avg_at_k``), or
    Wilson's of ``correct`` out of ``samples``; None where the record has neither."""
    over_problems = record.get("avg_at_k")
    if isinstance(over_problems, Mapping):
        low, high = _number(over_problems.get("low")), _number(over_problems.get("high"))
        if low is not None and high is not None and 0 <= low <= high <= 1:
            return low, high
    correct, samples = _number(record.get("correct")), _number(record.get("samples"))
    if correct is None or samples is None or samples < 1 or not 0 <= correct <= samples:
        return None
    return wilson_interval(correct, samples)


def _number(value: object) -> float | None:
    """A finite number, or None; no count is as large as a float cannot be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)
