"""Whether log μ stands beside the token it belongs to: correlations at a lag of −1, 0 and +1."""

from __future__ import annotations

import math

import numpy as np

from drpo.inspection.measured import Measured

#: Log-probabilities are cut off here (nats), so that one glitch does not make a correlation.
FLOOR = -20.0
#: Fewest pairs, and smallest correlation, that count as evidence.
FEWEST, STRONG = 200, 0.5


class Alignment:
    """Moments of the pairs (log π of token t, log μ of token t + lag), within sequences."""

    LAGS = (-1, 0, 1)

    def __init__(self) -> None:
        #: Per lag: n, Σx, Σy, Σx², Σy², Σxy.
        self.moments = np.zeros((len(self.LAGS), 6))

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        x = np.maximum(part.tokens.logprobs, FLOOR).astype(np.float64)
        y = np.maximum(part.tokens.behavior_logprobs, FLOOR).astype(np.float64)
        together = part.tokens.sequences[1:] == part.tokens.sequences[:-1]
        self._count(0, x[1:][together], y[:-1][together])
        self._count(1, x, y)
        self._count(2, x[:-1][together], y[1:][together])

    def _count(self, row: int, x: np.ndarray, y: np.ndarray) -> None:
        self.moments[row] += (len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y)

    def correlation(self, lag: int) -> float:
        """Pearson's, NaN where a side is constant or there are too few pairs."""
        n, x, y, xx, yy, xy = self.moments[self.LAGS.index(lag)]
        if n < FEWEST:
            return math.nan
        spread_x, spread_y = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2
        if spread_x < 1e-12 or spread_y < 1e-12:
            return math.nan
        return float((xy / n - x * y / n**2) / math.sqrt(spread_x * spread_y))

    def shifted_by(self) -> int | None:
        """−1 or +1 if log π agrees better with the neighbor's log μ than with its own, else None."""
        own, best = self.correlation(0), max((-1, 1), key=lambda lag: _or_none(self.correlation(lag)))
        beside = self.correlation(best)
        return best if beside > STRONG and not own >= beside else None


def _or_none(correlation: float) -> float:
    return -2.0 if math.isnan(correlation) else correlation
