"""Fixed fine histograms: quantiles of any number of values in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from drpo.mismatch.axis import Axis, Bins, Values

Counts = npt.NDArray[np.int64]


#: log10 |π − μ| in 50 bins a decade (a quantile is within 5 %), from 1e-8.
SHIFT = Axis(-8.0, 0.0, 400)
#: log r in bins of 0.005 nats, one of them centerd on 0, within ±8.
LOG_RATIO = Axis(-8.0025, 8.0025, 3201)
#: log10 μ in 50 bins a decade, from 1e-8.
PROBABILITY = Axis(-8.0, 0.0, 400)


@dataclass(slots=True)
class Histogram:
    """Counts per row (a group of values) and bin."""

    axis: Axis
    rows: int = 1
    counts: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.rows, self.axis.bins), dtype=np.int64)

    def add(self, values: Values, rows: Bins | None = None) -> None:
        """Count ``values`` ``[N]``, each in its row ``[N]``."""
        bins = self.axis.place(values)
        flat = bins if rows is None else bins + rows.astype(np.int32) * self.axis.bins
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)

    def quantiles(self, shares: Sequence[float], row: int | None = None) -> list[float | None]:
        """The quantiles of one row, or of all together; None where nothing was counted."""
        counts = self.counts.sum(0) if row is None else self.counts[row]
        return quantiles(counts, self.axis, shares)


def quantiles(counts: Counts, axis: Axis, shares: Sequence[float]) -> list[float | None]:
    """The quantiles of ``counts`` ``[bins]``, taken in the middle of a bin; None where nothing was counted."""
    total = counts.sum()
    if not total:
        return [None for _ in shares]
    reached = np.searchsorted(np.cumsum(counts), np.asarray(shares) * total, side="left")
    return [float(value) for value in axis.middles()[np.minimum(reached, axis.bins - 1)]]


def log10_or_floor(values: Values) -> Values:
    """log10 of non-negative ``values`` ``[N]``, zeros far below every axis here."""
    return np.log10(np.maximum(values, 1e-30))
