"""Equal bins along a line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]
Bins = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Axis:
    """Equal bins from ``low`` to ``high``; values beyond fall into the first or last one.

    A quantile read from them is off by at most one bin: ``(high − low) / bins``.
    """

    low: float
    high: float
    bins: int

    @property
    def width(self) -> float:
        """Of one bin."""
        return (self.high - self.low) / self.bins

    def place(self, values: Values) -> Bins:
        """``[N]`` the bin of each value."""
        with np.errstate(invalid="ignore"):
            scaled = (values - self.low) * (1 / self.width)
        return np.clip(scaled, 0, self.bins - 1).astype(np.int32)

    def middles(self) -> npt.NDArray[np.float64]:
        """``[bins]`` the middle of each bin."""
        return self.low + self.width * (np.arange(self.bins, dtype=np.float64) + 0.5)
