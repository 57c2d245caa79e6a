"""Objectives that look at the ratios of a whole response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_nonnegative, is_number, is_positive
from drpo.divergence import at_least_float32, log_ratio
from drpo.objectives.base import Objective, require, sequence_mean, sequence_sum, weighted_logprobs
from drpo.objectives.ratio import GRPO, RatioInterval


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
class LUSPO(GSPO):
    """Length-unbiased sequence policy optimization: `gspo` times the length of the response.

    Equation: J_t = T min(s Â, clip(s, 1 − ratio_low, 1 + ratio_high) Â), with s and the interval as in `gspo` and T the
    number of tokens of the sequence; w = T · w of `gspo`.
    Source: Liu et al., arXiv:2602.05261.
    Status: secondary, from TRL 1.16.0, grpo_trainer.py (loss_type luspo), and the paper's abstract.
    Shapes: loss [N].
    Parameters:
        ratio_low, ratio_high: as in `gspo`.
    Deviations: the sequence's value is spread over its tokens, so that with `sequence_mean` J is the source's; that is
    `gspo` with `sequence_sum` and horizon 1. The default interval is GSPO's; TRL's is 0.2. The anchor is μ.
    """

    name: ClassVar[str] = "luspo"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        loss = super().loss(batch)
        return sequence_sum(torch.ones_like(loss), batch) * loss


@dataclass(frozen=True, kw_only=True)
class VESPO(Objective):
    """Variational sequence-level soft policy optimization: a gamma-shaped weight of the whole response's ratio.

    Equation: J = sg(φ(W)) Â log π, with W = Π_t r_t over the sequence and φ(W) = exp(λ + k log W − λ W), so that
    φ(1) = 1; k and λ are k_positive and lambda_positive where Â ≥ 0, k_negative and lambda_negative elsewhere;
    w_t = φ(W) / r_t.
    Source: Shen et al., arXiv:2602.10693.
    Status: verified against its authors' code, FloyedShen/VESPO@aa1f304, recipe/vespo/code/core_algos.py,
    compute_policy_loss_vespo.
    Shapes: loss [N].
    Parameters:
        k_positive: power of W where Â ≥ 0, ≥ 0.
        lambda_positive: rate at which φ falls off for large W there, in inverse ratios, > 0.
        k_negative: power of W where Â < 0, ≥ 0.
        lambda_negative: rate at which φ falls off for large W there, in inverse ratios, > 0.
    Deviations: W is π/μ, where the authors multiply π/π_old with a capped π_old/μ. They clamp log W to ±20, log W from
    below to log 1e-8 once more, and give all tokens of a response the sign of the first one's Â.
    """

    name: ClassVar[str] = "vespo"
    token_local: ClassVar[bool] = False

    k_positive: float = 2.0
    lambda_positive: float = 3.0
    k_negative: float = 3.0
    lambda_negative: float = 2.0

    def __post_init__(self) -> None:
        for parameter in ("k_positive", "k_negative"):
            require(is_nonnegative(getattr(self, parameter)), self, parameter, "a finite number ≥ 0")
        for parameter in ("lambda_positive", "lambda_negative"):
            require(is_positive(getattr(self, parameter)), self, parameter, "a finite number > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        log_w = sequence_sum(log_ratio(batch.logprobs.detach(), batch.behavior_logprobs), batch)
        up = batch.advantages >= 0
        k = torch.where(up, self.k_positive, torch.full_like(log_w, self.k_negative))
        rate = torch.where(up, self.lambda_positive, torch.full_like(log_w, self.lambda_negative))
        return -weighted_logprobs(batch, (rate + k * log_w - rate * log_w.exp()).exp())


@dataclass(frozen=True, kw_only=True)
class FIPO(GRPO):
    """Future-KL influenced policy optimization: PPO's clip, weighed by where the rest of the response has moved.

    Equation: J_t = f_t J_t of `grpo`, with f_t = sg(clip(exp F_t, 1 − influence_low, 1 + influence_high)) and
    F_t = Σ_{j ≥ t} 2^(−(j − t)/half_life) log r_j over the sequence, without the tokens whose r_j > dual_clip; where
    Â < 0 and r_t > safety_ratio, f_t is clipped to [0.8, 1] too; w = f · w of `grpo`.
    Source: Ma et al., arXiv:2603.19835.
    Status: secondary, from ms-swift 4.6.0, grpo_trainer.py, _compute_fipo_influence, and its documentation.
    Shapes: loss [N].
    Parameters:
        ratio_low, ratio_high, dual_clip: as in `grpo`.
        half_life: the distance at which a later token counts half, tokens, > 0.
        influence_low: how far f may fall below 1, in [0, 1].
        influence_high: how far f may rise above 1, ≥ 0.
        safety_ratio: the r from which a negative advantage is not amplified, a ratio, > 0.
    Deviations: the interval of r is DAPO's, on which the source builds. The anchor is μ.
    """

    name: ClassVar[str] = "fipo"
    token_local: ClassVar[bool] = False

    half_life: float = 32.0
    influence_low: float = 0.0
    influence_high: float = 0.2
    safety_ratio: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(is_positive(self.half_life), self, "half_life", "a finite number of tokens > 0")
        low = self.influence_low
        require(is_number(low) and 0 <= low <= 1, self, "influence_low", "a number in [0, 1]")
        require(is_nonnegative(self.influence_high), self, "influence_high", "a finite number ≥ 0")
        require(is_positive(self.safety_ratio), self, "safety_ratio", "a finite ratio > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        return self.influence(batch) * super().loss(batch)

    def influence(self, batch: TokenBatch) -> torch.Tensor:
        """``[N]``: f."""
        log_r = log_ratio(batch.logprobs.detach(), batch.behavior_logprobs)
        r = log_r.exp()
        counted = log_r if self.dual_clip is None else torch.where(r > self.dual_clip, 0.0, log_r)
        future = discounted_future(counted, batch, 2.0 ** (-1 / self.half_life))
        f = future.exp().clamp(1 - self.influence_low, 1 + self.influence_high)
        return torch.where((batch.advantages < 0) & (r > self.safety_ratio), f.clamp(0.8, 1.0), f)


def discounted_future(values: torch.Tensor, batch: TokenBatch, discount: float) -> torch.Tensor:
    """``[N]``: at each token Σ_{j ≥ t} discount^(j − t) values_j over the rest of its sequence.

    By doubling: a token's sum over the next ``reach`` tokens, and that of the token after them. Every sum is over its
    own sequence alone, in an order that does not depend on what is packed around it.
    """
    index, reach = batch.sequence_index(), 1
    while reach < len(values):
        beyond = torch.where(index[reach:] == index[:-reach], values[reach:], 0.0)
        values = torch.cat([values[:-reach] + discount**reach * beyond, values[-reach:]])
        reach *= 2
    return values


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
