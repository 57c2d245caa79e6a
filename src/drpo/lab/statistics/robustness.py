"""How much tuning an arm needs: the width of its basin, and its sensitivity to hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drpo.lab.statistics.estimates import Estimate, rate

#: Of the reference gain, what a configuration in the basin keeps.
KEPT = 0.8
#: Percentiles between which scores of a setting are normalized.
LOWEST, HIGHEST = 5, 95


def reference_gain(gains: Sequence[float]) -> float:
    """A gain over the untrained model that is hardly surpassed: the 95th percentile of all arms' runs in a setting."""
    return float(np.percentile(np.asarray(gains, dtype=np.float64), HIGHEST))


def basin_width(gains: Sequence[float], reference: float) -> Estimate:
    """The share of drawn configurations in which an arm keeps 80 % of the reference gain, with its exact interval.

    Args:
        gains: of one arm over its untrained model, one a configuration.
        reference: :func:`reference_gain` of all arms, above 0.
    """
    return rate(sum(gain >= KEPT * reference for gain in gains), len(gains))


def normal_range(scores: Sequence[float]) -> tuple[float, float]:
    """The percentiles of a setting's scores, over all arms, that become 0 and 1 when settings are put together.

    Source: Adkins et al., arXiv:2412.07165, section 4.
    """
    low, high = np.percentile(np.asarray(scores, dtype=np.float64), [LOWEST, HIGHEST])
    return float(low), float(high)


def sensitivity(scores: np.ndarray) -> float:
    """Φ of one arm: what tuning in each setting gains over the best configuration for all of them, in normalized
    scores. 0: one configuration is best everywhere.

    Source: Adkins et al., arXiv:2412.07165, section 4.

    Args:
        scores: ``[settings, configurations]``, mean normalized scores.
    """
    return float(scores.max(axis=1).mean() - scores.mean(axis=0).max())
