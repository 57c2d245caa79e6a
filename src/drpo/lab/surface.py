"""A smooth surface through the scores of a tuning: neighbors in the grid share their noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: How far scores inform each other, as a share of each axis' range.
REACH = 0.35
#: The variance of a score's noise, as a share of the variance of the scores.
NOISE = 0.15


def fitted(points: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> list[float]:
    """The scores at ``points`` as a Gaussian process with a squared-exponential kernel fits them; axes are the keys
    whose values are positive numbers, by their logarithm.

    Args:
        points: keys of each try, the same keys in all.
        scores: one a point, all finite.
    """
    found = np.asarray(scores, dtype=np.float64)
    axes = [_axis([point[key] for point in points]) for key in points[0] if _is_positive(points[0][key])]
    varying = [axis for axis in axes if axis is not None]
    if len(found) < 3 or not varying or found.std() == 0:
        return [float(score) for score in found]
    places = np.stack(varying, axis=1)
    gaps = ((places[:, None, :] - places[None, :, :]) ** 2).sum(2)
    kernel = np.exp(-gaps / (2 * REACH**2))
    weights = np.linalg.solve(kernel + NOISE * np.eye(len(found)), found - found.mean())
    return [float(value) for value in kernel @ weights + found.mean()]


def _axis(values: Sequence[float]) -> np.ndarray | None:
    """Positions from 0 to 1; None where all are the same."""
    logs = np.array([math.log(value) for value in values])
    width = float(logs.max() - logs.min())
    return (logs - logs.min()) / width if width else None


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
