"""Signs that the sampler cut the distribution (top-p, top-k, min-p) and renormalized what was left.

Where the most likely token alone fills the nucleus, its renormalized probability is exactly 1, while π, which is not
cut, is anything down to p. No other cause gives log μ = 0 to all digits where π is clearly below 1. The smallest π
among such tokens estimates p. Where nuclei are larger, every log μ is raised by −log(kept mass) ≥ 0: ratios lie on one
side of 1.
"""

from __future__ import annotations

import math

import numpy as np

from drpo.inspection.histograms import Histogram
from drpo.inspection.measured import Measured
from drpo.mismatch.axis import Axis

#: log μ above this is a probability of 1, and log π below this is clearly less (nats).
ONE, LESS = -1e-6, -1e-3
#: |log r| that counts as apart (nats); fewest such tokens; largest share of them with r > 1.
APART, FEWEST_APART, ONE_SIDED = 0.01, 200, 0.01
#: Fewest tokens with μ = 1 alone, in number and as a share of all.
FEWEST_ALONE, ALONE = 20, 1e-3


class Truncation:
    """Counts of tokens with a renormalized μ."""

    def __init__(self) -> None:
        self.tokens = self.alone = self.above = self.below = 0
        self.alone_pi = Histogram(Axis(0.0, 1.0, 1000))

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        mu, pi = part.tokens.behavior_logprobs, part.tokens.logprobs
        alone = (mu >= ONE) & (pi < LESS)
        self.tokens += len(mu)
        self.alone += int(alone.sum())
        self.above += int((part.log_ratio > APART).sum())
        self.below += int((part.log_ratio < -APART).sum())
        self.alone_pi.add(np.exp(pi[alone]))

    @property
    def has_nuclei_of_one(self) -> bool:
        """Whether enough tokens have μ = 1 and a smaller π."""
        return self.alone >= max(FEWEST_ALONE, ALONE * self.tokens)

    @property
    def is_one_sided(self) -> bool:
        """Whether π is (nearly) never above μ among the tokens that differ."""
        apart = self.above + self.below
        return apart >= max(FEWEST_APART, 0.01 * self.tokens) and self.above <= ONE_SIDED * apart

    def top_p(self) -> float:
        """The estimate of p: the 1 % quantile of π among tokens with μ = 1; NaN if there are none."""
        (value,) = self.alone_pi.quantiles((0.01,))
        return math.nan if value is None else value
