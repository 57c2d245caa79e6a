"""Objectives that drop the tokens whose importance ratio r = π/μ leaves an interval, in either direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_number, is_positive
from drpo.divergence import ratio
from drpo.objectives.base import Objective, masked_surrogate, require, weighted_logprobs


@dataclass(frozen=True, kw_only=True)
class RatioIcePop(Objective):
    """IcePop on the whole ratio: the surrogate inside an interval of r, nothing outside it.

    Equation: J = M r Â, with M = 1 iff low ≤ r ≤ high, whatever the sign of Â(r − 1), else 0; w = M.
    Source: Ling team, arXiv:2510.18855, Eq. 1–2, where the mask is on π_old/μ (that is the modifier `icepop`); of
    r = π/μ, with these bounds, it is a loss of prime-rl.
    Status: secondary, from prime-rl's src/prime_rl/trainer/rl/loss.py (IcePopLoss) and configs/trainer.py
    (IcePopLossConfig) of autumn 2026.
    Shapes: loss [N].
    Parameters:
        low: smallest r that is kept, a ratio, ≥ 0.
        high: largest r that is kept, a ratio, > low.
    Deviations: none known.
    """

    name: ClassVar[str] = "icepop"

    low: float = 0.2
    high: float = 5.0

    def __post_init__(self) -> None:
        require(is_number(self.low) and self.low >= 0, self, "low", "a finite ratio ≥ 0")
        require(is_number(self.high) and self.high > self.low, self, "high", f"a finite ratio > low = {self.low:g}")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        r = ratio(batch.logprobs.detach(), batch.behavior_logprobs)
        return masked_surrogate(batch, (r < self.low) | (r > self.high))


@dataclass(frozen=True, kw_only=True)
class RolloutIS(Objective):
    """Importance-weighted policy gradient of agentic RL: a constant ratio inside an interval around 1, else nothing.

    Equation: J = sg(M r) Â log π, with M = 1 iff 1 − ratio_low < r < 1 + ratio_high, else 0; w = M. Its gradient is
    that of `icepop` with low = 1 − ratio_low and high = 1 + ratio_high.
    Source: GLM-5, arXiv:2602.15763, Section 4.1.2.
    Status: secondary, from NovaSky-AI/SkyRL@a956457, skyrl/backends/skyrl_train/utils/ppo_utils.py,
    rollout_is_policy_loss, which names that section.
    Shapes: loss [N].
    Parameters:
        ratio_low: how far r may fall below 1, a ratio, in (0, 1].
        ratio_high: how far r may rise above 1, a ratio, > 0.
    Deviations: none known; the bounds are SkyRL's defaults.
    """

    name: ClassVar[str] = "rollout_is"

    ratio_low: float = 0.2
    ratio_high: float = 0.2

    def __post_init__(self) -> None:
        require_around_one(self, "ratio_low", "ratio_high")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        r = ratio(batch.logprobs.detach(), batch.behavior_logprobs)
        return masked_policy_gradient(batch, (r <= 1 - self.ratio_low) | (r >= 1 + self.ratio_high), r)


@dataclass(frozen=True, kw_only=True)
class RECRing(Objective):
    """Group-relative REINFORCE with a ring of clipped ratios: tokens near μ, and converging tokens far from it.

    Equation: J = sg(M v) Â log π, with M = 1 iff 1 − ratio_low ≤ r ≤ 1 + ratio_high, or Â ≥ 0 and r ≤ 1 − outer_low,
    or Â ≤ 0 and r ≥ 1 + outer_high, else 0; v = r with importance_sampling, else 1; w = M v / r.
    Source: Yao et al., arXiv:2509.24203 (REC-Ring); without importance sampling it is the paper's REC-Ring-NoIS.
    Status: verified against its authors' code, agentscope-ai/Trinity-RFT@1d7fae4,
    trinity/algorithm/policy_loss_fn/rec_policy_loss.py (clip_mode ring).
    Shapes: loss [N].
    Parameters:
        ratio_low: how far r may fall below 1 within the inner interval, a ratio, in (0, 1].
        ratio_high: how far r may rise above 1 within it, a ratio, > 0.
        outer_low: a converging token with Â > 0 is kept from this far below 1 on, a ratio in [ratio_low, 1].
        outer_high: a converging token with Â < 0 is kept from this far above 1 on, a ratio ≥ ratio_high.
        importance_sampling: whether a kept token is weighed by r.
    Deviations: the source's other clips, weights and regularizers are other objectives here. The anchor is μ.
    """

    name: ClassVar[str] = "rec_ring"

    ratio_low: float = 0.2
    ratio_high: float = 0.2
    outer_low: float = 0.6
    outer_high: float = 2.0
    importance_sampling: bool = False

    def __post_init__(self) -> None:
        require_around_one(self, "ratio_low", "ratio_high")
        low, high = self.outer_low, self.outer_high
        is_outer = is_number(low) and self.ratio_low <= low <= 1
        require(is_outer, self, "outer_low", f"a ratio in [ratio_low = {self.ratio_low:g}, 1]")
        is_outer = is_number(high) and high >= self.ratio_high
        require(is_outer, self, "outer_high", f"a finite ratio ≥ ratio_high = {self.ratio_high:g}")
        require(isinstance(self.importance_sampling, bool), self, "importance_sampling", "true or false")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        r = ratio(batch.logprobs.detach(), batch.behavior_logprobs)
        kept = (r >= 1 - self.ratio_low) & (r <= 1 + self.ratio_high)
        kept = kept | ((batch.advantages >= 0) & (r <= 1 - self.outer_low))
        kept = kept | ((batch.advantages <= 0) & (r >= 1 + self.outer_high))
        return masked_policy_gradient(batch, ~kept, r if self.importance_sampling else 1.0)


def masked_policy_gradient(batch: TokenBatch, dropped: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
    """``[N]``: −weight · Â · log π with a constant ``weight``, 0 where ``dropped`` ``[N]``."""
    return torch.where(dropped, 0.0, -weighted_logprobs(batch, weight))


def require_around_one(objective: RolloutIS | RECRing, low: str, high: str) -> None:
    """0 < low ≤ 1 and high > 0: distances of a ratio from 1."""
    below, above = getattr(objective, low), getattr(objective, high)
    require(is_number(below) and 0 < below <= 1, objective, low, "a ratio in (0, 1]")
    require(is_positive(above), objective, high, "a finite ratio > 0")
