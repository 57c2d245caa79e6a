"""Signs that the sampler cut the distribution (top-p, top-k, min-p) and renormalized what was left.

A state whose kept tokens have the mass K gives each of them μ = π / K: log r = log K ≤ 0 at equal weights.

- **One token left.** Its μ is exactly 1, while π, which is not cut, is K. Under top-p every K is at least p, so the
  smallest π among such tokens estimates p, and no token with a larger π has a μ below 1. Under min-p a second token is
  left whenever its probability is at least m times the largest: below 1, μ is at most 1/(1 + m), and this edge is
  sharp.
- **One token left, and said to be.** A log that has the sizes of the supports claims that π is renormalized over them
  as well: then π is 1 wherever the size is 1, whatever the weights are.
- **Several left.** Ratios lie on one side of 1. Under top-k, the number of tokens left is the same in every state, and
  it is the mean of 1/μ: E[1/μ] = Σ μ · 1/μ over the kept ones. States with K near 1 are left out, where the least
  likely of the kept tokens dominate the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from drpo.inspection.detectors.ones import ONE, Ones
from drpo.inspection.histograms import Histogram
from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Floats
from drpo.mismatch.axis import Axis

#: |log r| that counts as apart (nats); fewest such tokens; largest share of them with r > 1.
APART, FEWEST_APART, ONE_SIDED = 0.01, 200, 0.01
#: The largest μ < 1, e, is a sharp edge if so many tokens lie within w = 1 − e of it, and such a share within w/4.
FEWEST_AT_EDGE, AT_EDGE = 30, 0.15
#: π of a token that is alone in its support, below which it is not renormalized: 1 but for rounding, bf16 included.
CERTAIN = 0.99
#: Bounds of K between which states are compared: fewest tokens of a class, relative standard error of 1/μ over all, and
#: how far the classes may differ.
KEPT, FEWEST_IN_CLASS, PRECISE, EVEN = (0.0, 0.5, 0.7, 0.85), 100, 0.15, 1.5


@dataclass(frozen=True, slots=True)
class Cut:
    """What the sampler did: ``kind`` is top-p, top-k, min-p, or the empty text where the log does not tell."""

    kind: str
    value: float = math.nan

    def __str__(self) -> str:
        if self.kind == "top-k":
            return f"top-k ≈ {self.value:.0f}"
        return f"{self.kind} ≈ {self.value:.2f}" if self.kind else "top-p, top-k or min-p"


class Truncation:
    """Counts of tokens with a renormalized μ. Only tokens of update 0 count for r, if the log has updates."""

    def __init__(self) -> None:
        self.above = self.below = self.compared = 0
        #: log10(1 − μ) of tokens with 0.5 < μ < 1, and the largest μ among them.
        self.below_one = Histogram(Axis(-7.0, 0.0, 280))
        self.largest = 0.0
        #: By class of K: tokens, Σ 1/μ, Σ 1/μ².
        self.kept = np.zeros((len(KEPT) - 1, 3))
        #: Tokens whose support has one id, those of them where π is below 1, and the smallest π.
        self.alone = self.alone_below = 0
        self.least_alone = 1.0

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        log_mu = part.tokens.behavior_logprobs
        mu = np.exp(log_mu[(log_mu < ONE) & (log_mu > math.log(0.5))].astype(np.float64))
        self.below_one.add(np.log10(1 - mu))
        self.largest = max(self.largest, float(mu.max(initial=0.0)))
        if part.tokens.support_sizes is not None:
            alone = np.exp(part.tokens.logprobs[part.tokens.support_sizes == 1].astype(np.float64))
            self.alone += len(alone)
            self.alone_below += int((alone < CERTAIN).sum())
            self.least_alone = min(self.least_alone, float(alone.min(initial=1.0)))
        fresh = part.fresh()
        self._count_ratios(part.log_ratio[fresh], log_mu[fresh])

    def _count_ratios(self, log_ratio: Floats, mu: Floats) -> None:
        self.compared += len(mu)
        self.above += int((log_ratio > APART).sum())
        self.below += int((log_ratio < -APART).sum())
        few = log_ratio < math.log(KEPT[-1])
        index = np.searchsorted(np.log(KEPT[1:-1]), log_ratio[few])
        inverse = np.exp(-mu[few].astype(np.float64))
        for column, weights in enumerate((None, inverse, inverse**2)):
            self.kept[:, column] += np.bincount(index, weights=weights, minlength=len(self.kept))

    @property
    def is_one_sided(self) -> bool:
        """Whether π is (nearly) never above μ among the tokens that differ."""
        apart = self.above + self.below
        return apart >= max(FEWEST_APART, 0.01 * self.compared) and self.above <= ONE_SIDED * apart

    def cut(self, ones: Ones) -> Cut | None:
        """How the distribution was cut; None if it was not. ``ones`` are those of μ."""
        if ones.are_many and ones.are_alone:
            return Cut("min-p", 1 / self.largest - 1) if self._has_edge() else Cut("top-p", ones.least)
        if not self.is_one_sided:
            return None
        k = self._top_k()
        return Cut("") if k is None else Cut("top-k", k)

    def _has_edge(self) -> bool:
        """Whether values of μ are as frequent at the largest one below 1 as further below it."""
        width = 1 - self.largest
        if not 0 < width < 0.5:
            return False
        first, near, last = self.below_one.axis.place(np.log10(np.array([1, 1.25, 2]) * width))
        beside, within = (self.below_one.counts[0, first : end + 1].sum() for end in (near, last))
        return within >= FEWEST_AT_EDGE and beside >= AT_EDGE * within

    def _top_k(self) -> float | None:
        """The mean of 1/μ, if it is precise and alike in all classes of K."""
        used = self.kept[self.kept[:, 0] >= FEWEST_IN_CLASS]
        if not len(used):
            return None
        n, total, squares = used.sum(0)
        k = total / n
        spread = math.sqrt(max(squares / n - k**2, 0.0) / n)
        means = used[:, 1] / used[:, 0]
        return float(k) if spread <= PRECISE * k and means.max() <= EVEN * means.min() else None
