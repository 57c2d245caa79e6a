"""The ratio of the temperatures of π and μ, estimated from sampled tokens alone.

At temperature T a distribution is p^(1/T), normalized. So with equal weights, the odds of a token with probability p
against the rest of its state are, if the rest is spread like n equally likely tokens (n the exponential of its Rényi
entropy of order a),

    logit μ = a · logit π + (a − 1) · log n,        a = T_π / T_μ.

log n differs from state to state. Among tokens that dominate their state (logit > DECIDED) it has little to do with
logit π, so the slope of the conditional median is a; below, what kind of state a token comes from changes with its
probability, so those tokens are left out. Numerical noise and drift between π and μ dilute the regression of μ on π
and that of π on μ by about the same factor, so

    â = √(slope of logit μ on logit π / slope of logit π on logit μ)

is 1 for drift without direction. Medians in bins make it robust to outliers. The interval is a jackknife over groups
of sequences; it does not cover what the assumption on n costs (about 0.02 of a in simulations). A policy that has
grown more decided since it sampled has a slope ≠ 1 too: the estimate counts as a fault only if the line accounts for
a large part of the difference between π and μ, which drift token by token never does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drpo.mismatch.axis import Axis
from drpo.mismatch.estimate import Estimate

#: Logits used, in bins of 0.1. Beyond, 1 − p has too few digits in float32.
LOGIT = Axis(-7.0, 7.0, 140)
#: Tokens with a smaller logit (p < 0.62) are left out.
DECIDED = 0.5
#: Groups of sequences for the jackknife, and Student's 97.5 % quantile at one degree of freedom less.
GROUPS, STUDENT = 16, 2.131
#: Fewest tokens in a bin, and in all.
FEWEST_IN_BIN, FEWEST = 30, 1000
#: A ratio further from 1 than this, which explains at least this share of π against μ, is a fault.
APART, EXPLAINS = 0.05, 0.3

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slope:
    """The estimate of T_π / T_μ, and the share of the mean |logit μ − logit π| that the line accounts for."""

    estimate: Estimate
    explained: float

    @property
    def is_fault(self) -> bool:
        """Whether the two temperatures differ beyond what noise and drift explain."""
        found = self.estimate
        apart = abs(found.value - 1) > APART and not found.low <= 1 <= found.high
        return apart and self.explained >= EXPLAINS


class Temperature:
    """Counts of (logit π, logit μ), by group of sequences.

    Args:
        axis: bins of the logits; fewer of them make do with fewer tokens.
        fewest_in_bin: tokens that a bin needs to count.
        fewest: tokens that an estimate needs.
    """

    def __init__(self, axis: Axis = LOGIT, fewest_in_bin: int = FEWEST_IN_BIN, fewest: int = FEWEST) -> None:
        self.axis, self.fewest_in_bin, self.fewest = axis, fewest_in_bin, fewest
        self.counts = np.zeros((GROUPS, axis.bins, axis.bins), dtype=np.int64)

    def count(
        self,
        logprobs: npt.NDArray[np.floating],
        behavior_logprobs: npt.NDArray[np.floating],
        sequences: npt.NDArray[np.int64],
    ) -> None:
        """Count tokens ``[N]`` of the sequences ``[N]``, numbered over all calls."""
        x, y, axis = logit(logprobs), logit(behavior_logprobs), self.axis
        inside = (np.abs(x) < axis.high) & (np.abs(y) < axis.high)
        group = sequences[inside] % GROUPS
        cells = (group * axis.bins + axis.place(x[inside])) * axis.bins + axis.place(y[inside])
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def slope(self) -> Slope | None:
        """The estimate; None if there are too few tokens or they are too much alike."""
        counts = self.counts.sum(0)
        whole = self._symmetric_slope(counts)
        if counts.sum() < self.fewest or whole is None:
            return None
        without = [self._symmetric_slope(counts - group) for group in self.counts if group.any()]
        known = np.array([value for value in without if value is not None])
        if len(known) < 8:
            return None
        spread = math.sqrt((len(known) - 1) * np.mean((known - known.mean()) ** 2))
        half = STUDENT * spread
        return Slope(Estimate(whole, whole - half, whole + half), self._explained(counts, whole))

    def _symmetric_slope(self, counts: npt.NDArray[np.int64]) -> float | None:
        """√(slope of the columns' on the rows' axis / slope the other way round)."""
        forward, backward = self._median_slope(counts), self._median_slope(counts.T)
        if forward is None or backward is None or forward <= 0 or backward <= 0:
            return None
        return math.sqrt(forward / backward)

    def _median_slope(self, counts: npt.NDArray[np.int64]) -> float | None:
        """The weighted least-squares line through the median of each row ``[rows, columns]``."""
        totals = counts.sum(1)
        used = (totals >= self.fewest_in_bin) & (self.axis.middles() > DECIDED)
        if used.sum() < 5:
            return None
        x, n = self.axis.middles()[used], totals[used].astype(np.float64)
        y = self._medians(counts[used], totals[used])
        x0, y0 = np.average(x, weights=n), np.average(y, weights=n)
        spread = n @ (x - x0) ** 2
        return float(n @ ((x - x0) * (y - y0)) / spread) if spread > 0.1 * n.sum() else None

    def _medians(self, counts: npt.NDArray[np.int64], totals: npt.NDArray[np.int64]) -> Array:
        """The median of each row, interpolated within its bin."""
        reached = np.cumsum(counts, axis=1)
        half = totals / 2
        bins = (reached < half[:, None]).sum(1)
        row = np.arange(len(counts))
        inside = counts[row, bins]
        before = reached[row, bins] - inside
        return self.axis.low + self.axis.width * (bins + (half - before) / inside)

    def _explained(self, counts: npt.NDArray[np.int64], slope: float) -> float:
        """How much smaller the mean absolute difference is from the line than from logit μ = logit π."""
        rows, columns = np.nonzero(counts)
        x, y = self.axis.middles()[rows], self.axis.middles()[columns]
        used = x + y > 2 * DECIDED
        n, x, y = counts[rows, columns][used], x[used], y[used]
        before = n @ np.abs(y - x)
        residual = y - slope * x
        order = np.argsort(residual)
        middle = residual[order][np.searchsorted(np.cumsum(n[order]), n.sum() / 2)]
        return float(1 - n @ np.abs(residual - middle) / before) if before else 0.0


def logit(logprobs: npt.NDArray[np.floating]) -> Array:
    """log p − log(1 − p) of log-probabilities ``[N]``; infinite at 0 and 1."""
    wide = logprobs.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return wide - np.log(-np.expm1(np.minimum(wide, 0.0)))
