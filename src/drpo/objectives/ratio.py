"""Objectives that bound the importance ratio r = π/μ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.divergence import at_least_float32, ratio
from drpo.objectives.base import Objective, is_number, is_positive, require


@dataclass(frozen=True, kw_only=True)
class Surrogate(Objective):
    """The importance-weighted policy gradient, with no trust region.

    Equation: J = r Â; w = 1.
    Source: the surrogate of TRPO (Schulman et al., arXiv:1502.05477, Eq. 14).
    Shapes: loss [N].
    Deviations: none.
    """

    name: ClassVar[str] = "surrogate"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        return -ratio(batch.logprobs, batch.behavior_logprobs) * at_least_float32(batch.advantages)


@dataclass(frozen=True, kw_only=True)
class PPO(Objective):
    """Proximal policy optimization: the ratio is clipped to [1 − ratio_low, 1 + ratio_high].

    Equation: J = min(r Â, clip(r, 1 − ratio_low, 1 + ratio_high) Â); with dual_clip = c, for Â < 0:
    max(that, c Â). w = 0 where Â(r − 1) > 0 and r is outside the interval (or Â < 0 and r > c), else 1.
    Source: Schulman et al., arXiv:1707.06347, Eq. 7; the dual clip is Ye et al., arXiv:1912.09729, Eq. 5.
    Shapes: loss [N].
    Parameters:
        ratio_low: how far r may fall below 1, a ratio, in (0, 1].
        ratio_high: how far r may rise above 1, a ratio, > 0.
        dual_clip: largest r for which a negative advantage is followed, a ratio, > 1 + ratio_high; None: unbounded.
    Deviations: the anchor is the behaviour policy μ (the rollout engine's), not π_old recomputed.
    """

    name: ClassVar[str] = "ppo"

    ratio_low: float = 0.2
    ratio_high: float = 0.2
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        require(is_number(self.ratio_low) and 0 < self.ratio_low <= 1, self, "ratio_low", "a ratio in (0, 1]")
        require(is_positive(self.ratio_high), self, "ratio_high", "a finite ratio > 0")
        if self.dual_clip is not None:
            require(is_number(self.dual_clip) and self.dual_clip > 1 + self.ratio_high, self, "dual_clip",
                    f"None or a finite ratio > 1 + ratio_high = {1 + self.ratio_high:g}")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        r = ratio(batch.logprobs, batch.behavior_logprobs)
        advantages = at_least_float32(batch.advantages)
        clipped = r.clamp(1 - self.ratio_low, 1 + self.ratio_high)
        gain = torch.minimum(r * advantages, clipped * advantages)
        if self.dual_clip is not None:
            gain = torch.where(advantages < 0, torch.maximum(gain, self.dual_clip * advantages), gain)
        return -gain


@dataclass(frozen=True, kw_only=True)
class GRPO(PPO):
    """PPO's clipping with a higher upper bound ("clip-higher"), as group-relative methods run it today.

    Equation: PPO's, with ratio_high > ratio_low by default.
    Source: Shao et al., arXiv:2402.03300, Eq. 3, without its KL term; the asymmetric bound is DAPO,
    Yu et al., arXiv:2503.14476, Eq. 8. Group-relative advantages and the aggregation are chosen apart
    (`drpo.advantages`, `drpo.aggregate`).
    Shapes: loss [N].
    Parameters:
        ratio_low, ratio_high, dual_clip: as in `ppo`.
    Deviations: as `ppo`.
    """

    name: ClassVar[str] = "grpo"

    ratio_high: float = 0.28


@dataclass(frozen=True, kw_only=True)
class SPO(Objective):
    """Simple policy optimization: a quadratic in the ratio in the place of the clip.

    Equation: J = r Â − |Â| / (2 epsilon) · (r − 1)²; w = 1 − sign(Â (r − 1)) · |r − 1| / epsilon, unbounded.
    Source: Xie et al., arXiv:2401.16025, Eq. 12.
    Shapes: loss [N].
    Parameters:
        epsilon: the |r − 1| at which the weight of a diverging token reaches 0, a ratio, > 0. The DRPO paper
            ran 12.5.
    Deviations: the anchor is the behaviour policy μ.
    """

    name: ClassVar[str] = "spo"

    epsilon: float = 0.2

    def __post_init__(self) -> None:
        require(is_positive(self.epsilon), self, "epsilon", "a finite ratio > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        r = ratio(batch.logprobs, batch.behavior_logprobs)
        advantages = at_least_float32(batch.advantages)
        penalty = advantages.abs() * (r - 1).square() / (2 * self.epsilon)
        return penalty - r * advantages
