"""Objectives whose ratio is a whole sequence's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_positive
from drpo.divergence import at_least_float32, log_ratio
from drpo.objectives.base import Objective, require, sequence_mean
from drpo.objectives.ratio import RatioInterval


@dataclass(frozen=True, kw_only=True)
class GSPO(RatioInterval):
    """Group sequence policy optimization: PPO's clip on the geometric mean ratio of the whole response.

    Equation: J_t = min(s Â, clip(s, 1 − ratio_low, 1 + ratio_high) Â), with s = exp(mean_t log r_t) the same for all
    tokens of a sequence; w_t = M s / r_t, with M = 0 iff Â(s − 1) > 0 and s is outside the interval.
    Source: Zheng et al., arXiv:2507.18071.
    Status: verified against the paper, Section 4.1, Eq. 5 and 7; the bounds Section 5.1.
    Shapes: loss [N].
    Parameters:
        ratio_low: how far s may fall below 1, a ratio, in (0, 1].
        ratio_high: how far s may rise above 1, a ratio, > 0.
    Deviations: the sequence's value is spread over its tokens, so that with `sequence_mean` J is the paper's; the
    anchor is μ, from which s differs by more than these bounds in low precision.
    """

    name: ClassVar[str] = "gspo"
    token_local: ClassVar[bool] = False

    ratio_low: float = 3e-4
    ratio_high: float = 4e-4

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        s = sequence_mean(log_ratio(batch.logprobs, batch.behavior_logprobs), batch).exp()
        return -self.gain(s, at_least_float32(batch.advantages))


@dataclass(frozen=True, kw_only=True)
class GMPO(Objective):
    """Geometric-mean policy optimization: each token's log-ratio is clipped, then their mean is exponentiated.

    Equation: J_t = g Â, with g = exp(mean_t c_t) the same for all tokens of a sequence, and c_t = min(log r_t,
    log_ratio_max) where Â > 0, max(log r_t, −log_ratio_max) where Â < 0; w_t = M_t g / r_t, with M_t = 0 iff
    Â log r_t > 0 and |log r_t| > log_ratio_max.
    Source: Zhao et al., arXiv:2507.20673.
    Status: verified against its authors' code, callsys/GMPO@205b2bf, train_zero_math_gmpo.py (gmpo); the bound in
    scripts/qwen2.5-math-7b-gmpo.sh.
    Shapes: loss [N].
    Parameters:
        log_ratio_max: bound on a diverging token's |log r|, nats, > 0.
    Deviations: the sequence's value is spread over its tokens; the anchor is μ.
    """

    name: ClassVar[str] = "gmpo"
    token_local: ClassVar[bool] = False

    log_ratio_max: float = 0.4

    def __post_init__(self) -> None:
        require(is_positive(self.log_ratio_max), self, "log_ratio_max", "a finite number of nats > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        log_r = log_ratio(batch.logprobs, batch.behavior_logprobs)
        advantages = at_least_float32(batch.advantages)
        up, down = log_r.clamp(max=self.log_ratio_max), log_r.clamp(min=-self.log_ratio_max)
        clipped = torch.where(advantages > 0, up, down)
        return -sequence_mean(clipped, batch).exp() * advantages
