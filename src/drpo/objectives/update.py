"""Objectives that choose tokens by comparing all tokens of an update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_nonnegative, is_number, is_positive
from drpo.divergence import at_least_float32, log_ratio, ratio
from drpo.objectives.base import Objective, from_parameters, is_diverging, masked_surrogate, require
from drpo.objectives.ratio import RatioInterval


@dataclass(frozen=True, kw_only=True)
class M2PO(Objective):
    """Second-moment trust policy optimization: drop the diverging tokens with the largest log-ratios.

    Equation: J = M r Â; the diverging tokens of the update, Â(r − 1) > 0, are dropped (M = 0) in the order of falling
    log² r until the mean of log² r over the diverging tokens that remain is at most second_moment_max; M = 1 for all
    other tokens; w = M.
    Source: Zheng et al., arXiv:2510.01161, Eq. 4–5, Algorithm 1.
    Status: verified against the paper, Sections 5.1–5.2, Eq. 4–5 and Algorithm 1.
    Shapes: loss [N], of a whole update: the decision is one over all of its tokens.
    Parameters:
        second_moment_max: bound on the mean of log² r over diverging tokens, nats², > 0.
    Deviations: tokens with equal log² r are dropped together, so that their order does not matter. The authors' code
    differs from the paper: it turns the largest log² r that stays into one interval for PPO's clip, which is never
    narrower than [0.7, 1.5]. The anchor is μ.
    """

    name: ClassVar[str] = "m2po"
    token_local: ClassVar[bool] = False
    sequence_local: ClassVar[bool] = False

    second_moment_max: float = 0.04

    def __post_init__(self) -> None:
        require(is_positive(self.second_moment_max), self, "second_moment_max", "a finite number of nats² > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        log_r = log_ratio(batch.logprobs.detach(), batch.behavior_logprobs)
        diverging = is_diverging(batch.advantages, log_r)
        # Tokens that do not diverge sort last, where a running mean is infinite: no boolean index, no host sync.
        squares = torch.where(diverging, log_r.double().square(), torch.inf)
        ordered = squares.sort().values
        counts = torch.arange(1, len(batch) + 1, device=squares.device)
        too_far = ordered.cumsum(0) / counts > self.second_moment_max
        # The smallest that is masked; every larger one is masked too.
        smallest = torch.where(too_far, ordered, torch.inf).amin() if len(batch) else ordered.sum()
        return masked_surrogate(batch, diverging & (squares >= smallest))


@dataclass(frozen=True, kw_only=True)
class ClipCov(RatioInterval):
    """PPO's clip, and no gradient for a few tokens that would lower the entropy most.

    Equation: J = M min(r Â, clip(r, 1 − ratio_low, 1 + ratio_high) Â), with M = 0 at max(1, ⌊fraction · N⌋) tokens
    (all, if there are fewer) of those that the clip keeps and for which covariance_low < C < covariance_high, else 1;
    C = (Â − mean Â)(log π − mean log π) over the N tokens of the update; w = M · w of `ppo`.
    Source: Cui et al., arXiv:2505.22617 (Clip-Cov).
    Status: verified against its authors' code, PRIME-RL/Entropy-Mechanism-of-RL@8850579,
    verl/trainer/ppo/core_algos.py, compute_policy_loss_clip_cov.
    Shapes: loss [N], of a whole update: the decision is one over all of its tokens.
    Parameters:
        ratio_low, ratio_high: as in `ppo`.
        fraction: share of the tokens that is dropped, in (0, 1].
        covariance_low: tokens with a smaller C are not dropped; in units of the advantage times nats, ≥ 0.
        covariance_high: tokens with a larger C are not dropped; in the same units, > covariance_low.
    Deviations: the authors draw the tokens with torch's random generator. Here they are those with the smallest hash of
    log μ (splitmix64 of its bits in float64; the first in the batch where it is equal): a choice that looks random, and
    that is the same whatever the order, the packing, the process and the run. The anchor is μ.
    """

    name: ClassVar[str] = "clip_cov"
    token_local: ClassVar[bool] = False
    sequence_local: ClassVar[bool] = False
    homogeneous: ClassVar[bool] = False

    fraction: float = 0.0002
    covariance_low: float = 1.0
    covariance_high: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction(self)
        low, high = self.covariance_low, self.covariance_high
        require(is_nonnegative(low), self, "covariance_low", "a finite number ≥ 0")
        require(is_number(high) and high > low, self, "covariance_high", f"a finite number > covariance_low = {low:g}")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        advantages = at_least_float32(batch.advantages)
        r = ratio(batch.logprobs, batch.behavior_logprobs)
        gain = self.gain(r, advantages)
        clipped = gain < r * advantages
        covariance = entropy_covariance(batch)
        allowed = ~clipped & (covariance > self.covariance_low) & (covariance < self.covariance_high)
        return torch.where(first_by_hash(batch, allowed, share_of(batch, self.fraction)), 0.0, -gain)


@dataclass(frozen=True, kw_only=True)
class KLCov(Objective):
    """The surrogate, with a KL penalty on the few tokens that would lower the entropy most.

    Equation: J = r Â − coefficient · |log r| at the max(1, ⌊fraction · N⌋) tokens with the largest C, J = r Â at all
    others; C = (Â − mean Â)(log π − mean log π) over the N tokens of the update;
    w = 1 − coefficient · sign(log r) / (r Â), and 1.
    Source: Cui et al., arXiv:2505.22617 (KL-Cov).
    Status: verified against its authors' code, PRIME-RL/Entropy-Mechanism-of-RL@8850579,
    verl/trainer/ppo/core_algos.py, compute_policy_loss_kl_cov.
    Shapes: loss [N], of a whole update: the decision is one over all of its tokens.
    Parameters:
        fraction: share of the tokens that is penalized, in (0, 1].
        coefficient: strength of the penalty, ≥ 0 and in units of the advantage: it is not scaled by |Â|.
    Deviations: tokens with the same C as the last one are penalized too, so that their order does not matter. At r = 1
    exactly the slope of |log r| is taken to be 0. The anchor is μ.
    """

    name: ClassVar[str] = "kl_cov"
    token_local: ClassVar[bool] = False
    sequence_local: ClassVar[bool] = False
    homogeneous: ClassVar[bool] = from_parameters(lambda self: self.coefficient == 0)

    fraction: float = 0.0002
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        require_fraction(self)
        require(is_nonnegative(self.coefficient), self, "coefficient", "a finite number ≥ 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        log_r = log_ratio(batch.logprobs, batch.behavior_logprobs)
        loss = -log_r.exp() * at_least_float32(batch.advantages)
        if not len(batch):
            return loss
        covariance = entropy_covariance(batch)
        penalized = covariance >= covariance.topk(share_of(batch, self.fraction)).values[-1]
        return loss + torch.where(penalized, self.coefficient * log_r.abs(), 0.0)


def require_fraction(objective: ClipCov | KLCov) -> None:
    """0 < fraction ≤ 1."""
    fraction = objective.fraction
    require(is_number(fraction) and 0 < fraction <= 1, objective, "fraction", "a share in (0, 1]")


def share_of(batch: TokenBatch, fraction: float) -> int:
    """How many of its tokens: ⌊fraction · N⌋, and one at least."""
    return max(1, int(fraction * len(batch)))


def entropy_covariance(batch: TokenBatch) -> torch.Tensor:
    """``[N]`` float64: (Â − mean Â)(log π − mean log π), each token's part of what lowers the entropy."""
    advantages, logprobs = batch.advantages.double(), batch.logprobs.detach().double()
    return (advantages - advantages.mean()) * (logprobs - logprobs.mean())


def first_by_hash(batch: TokenBatch, allowed: torch.Tensor, count: int) -> torch.Tensor:
    """``[N]`` bool: the ``count`` of the ``allowed`` tokens whose log μ has the smallest hash; all, if fewer."""
    key = torch.where(allowed, splitmix64(batch.behavior_logprobs.double().view(torch.int64)), MAX_INT64)
    first = torch.zeros_like(allowed).index_fill(0, key.argsort(stable=True)[:count], True)
    return first & allowed


MAX_INT64 = 2**63 - 1


def splitmix64(bits: torch.Tensor) -> torch.Tensor:
    """The finalizer of splitmix64 on each int64; products wrap around, and shifts bring in zeros."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits = (bits ^ logical_shift(bits, shift)) * factor
    return bits ^ logical_shift(bits, 31)


def logical_shift(bits: torch.Tensor, places: int) -> torch.Tensor:
    """``bits`` to the right; torch's own shift of a negative number brings in ones."""
    return (bits >> places) & (2 ** (64 - places) - 1)
