"""Objectives that drop the tokens whose divergence from the behaviour policy exceeds a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.divergence import at_least_float32, binary_tv, log_ratio
from drpo.objectives.base import Objective, harmful, is_positive, require


@dataclass(frozen=True, kw_only=True)
class DPPOTV(Objective):
    """Divergence PPO with the binary total variation: drop diverging tokens whose |π − μ| exceeds delta.

    Equation: J = M r Â, with M = 0 iff Â(r − 1) > 0 and |π − μ| > delta, else 1; w = M.
    With ratio_cap = C: J = sg(M min(r, C)) Â log π, whose gradient is M min(r, C) Â ∇log π.
    Source: Qi et al., arXiv:2602.04879, Eq. 12–13.
    Shapes: loss [N].
    Parameters:
        delta: bound on |π − μ|, a probability, > 0; at 1 or above nothing is ever dropped.
        ratio_cap: the largest importance ratio to weigh with, a ratio, > 0; None: unbounded.
    Deviations: none known. verl's version always caps and detaches the ratio; that is ratio_cap here.
    """

    name: ClassVar[str] = "dppo_tv"

    delta: float = 0.15
    ratio_cap: float | None = None

    def __post_init__(self) -> None:
        require(is_positive(self.delta), self, "delta", "a finite probability > 0")
        require(self.ratio_cap is None or is_positive(self.ratio_cap), self, "ratio_cap", "None or a finite ratio > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        divergence = binary_tv(batch.logprobs, batch.behavior_logprobs).detach()
        return masked_surrogate(batch, divergence > self.delta, self.ratio_cap)


def masked_surrogate(batch: TokenBatch, beyond: torch.Tensor, ratio_cap: float | None) -> torch.Tensor:
    """``[N]``: the surrogate's loss, constant 0 on harmful tokens that are ``beyond`` ``[N]`` the region."""
    advantages = at_least_float32(batch.advantages)
    log_r = log_ratio(batch.logprobs, batch.behavior_logprobs)
    dropped = harmful(advantages, log_r.detach()) & beyond
    if ratio_cap is None:
        gain = log_r.exp() * advantages
    else:
        gain = log_r.detach().exp().clamp(max=ratio_cap) * advantages * at_least_float32(batch.logprobs)
    return torch.where(dropped, 0.0, -gain)
