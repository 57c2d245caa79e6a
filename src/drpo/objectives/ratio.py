"""Objectives that bound the importance ratio r = π/μ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_nonnegative, is_number, is_positive
from drpo.divergence import at_least_float32, log_ratio, ratio
from drpo.objectives.base import (
    Objective,
    from_parameters,
    masked_surrogate,
    require,
    weighted_logprobs,
)


@dataclass(frozen=True, kw_only=True)
class Surrogate(Objective):
    """The importance-weighted policy gradient, with no trust region.

    Equation: J = r Â; w = 1.
    Source: the surrogate of TRPO (Schulman et al., arXiv:1502.05477, Eq. 14).
    Status: verified against its authors' code, openai/baselines@ea25b9e, baselines/trpo_mpi/trpo_mpi.py (surrgain).
    Shapes: loss [N].
    Deviations: none.
    """

    name: ClassVar[str] = "surrogate"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        return -ratio(batch.logprobs, batch.behavior_logprobs) * at_least_float32(batch.advantages)


@dataclass(frozen=True, kw_only=True)
class RatioInterval(Objective):
    """What PPO and its kin share: min(r Â, bounded(r) Â), with an interval around r = 1."""

    ratio_low: float = 0.2
    ratio_high: float = 0.2

    def __post_init__(self) -> None:
        require(is_number(self.ratio_low) and 0 < self.ratio_low <= 1, self, "ratio_low", "a ratio in (0, 1]")
        require(is_positive(self.ratio_high), self, "ratio_high", "a finite ratio > 0")

    def bounded(self, r: torch.Tensor) -> torch.Tensor:
        """``[N]``: what takes the ratio's place outside the interval."""
        return r.clamp(1 - self.ratio_low, 1 + self.ratio_high)

    def gain(self, r: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """``[N]``: J at the ratios ``r``."""
        return torch.minimum(r * advantages, self.bounded(r) * advantages)

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        return -self.gain(ratio(batch.logprobs, batch.behavior_logprobs), at_least_float32(batch.advantages))


@dataclass(frozen=True, kw_only=True)
class PPO(RatioInterval):
    """Proximal policy optimization: the ratio is clipped to [1 − ratio_low, 1 + ratio_high].

    Equation: J = min(r Â, clip(r, 1 − ratio_low, 1 + ratio_high) Â); with dual_clip = c, for Â < 0:
    max(that, c Â). w = 0 where Â(r − 1) > 0 and r is outside the interval (or Â < 0 and r > c), else 1.
    Source: Schulman et al., arXiv:1707.06347, Eq. 7; the dual clip is Ye et al., arXiv:1912.09729, Eq. 5.
    Status: verified against its authors' code, openai/baselines@ea25b9e, baselines/ppo2/model.py (pg_losses); the dual
    clip against verl-project/verl@1dda039, verl/trainer/ppo/core_algos.py, compute_policy_loss_vanilla.
    Shapes: loss [N].
    Parameters:
        ratio_low: how far r may fall below 1, a ratio, in (0, 1].
        ratio_high: how far r may rise above 1, a ratio, > 0.
        dual_clip: largest r for which a negative advantage is followed, a ratio, > 1 + ratio_high; None: unbounded.
    Deviations: the anchor is the behavior policy μ (the rollout engine's), not π_old recomputed.
    """

    name: ClassVar[str] = "ppo"

    dual_clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dual_clip is not None:
            require(
                is_number(self.dual_clip) and self.dual_clip > 1 + self.ratio_high,
                self,
                "dual_clip",
                f"None or a finite ratio > 1 + ratio_high = {1 + self.ratio_high:g}",
            )

    def gain(self, r: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        gain = super().gain(r, advantages)
        if self.dual_clip is None:
            return gain
        return torch.where(advantages < 0, torch.maximum(gain, self.dual_clip * advantages), gain)


@dataclass(frozen=True, kw_only=True)
class GRPO(PPO):
    """PPO's clipping with a higher upper bound ("clip-higher"), as group-relative methods run it today.

    Equation: PPO's, with ratio_high > ratio_low by default.
    Source: Shao et al., arXiv:2402.03300, Eq. 3, without its KL term; the asymmetric bound is DAPO,
    Yu et al., arXiv:2503.14476, Eq. 8. Group-relative advantages and the aggregation are chosen apart
    (`drpo.advantages`, `drpo.aggregate`).
    Status: verified against verl-project/verl@1dda039, verl/trainer/ppo/core_algos.py, compute_policy_loss_vanilla
    (DAPO's code is built on it).
    Shapes: loss [N].
    Parameters:
        ratio_low, ratio_high, dual_clip: as in `ppo`.
    Deviations: as `ppo`.
    """

    name: ClassVar[str] = "grpo"

    ratio_high: float = 0.28


@dataclass(frozen=True, kw_only=True)
class TrulyPPO(RatioInterval):
    """PPO that rolls back: beyond the bound its slope is negative instead of zero.

    Equation: J = min(r Â, F(r) Â), with F(r) = clip(r) − rollback · (r − clip(r)) and clip(r) as in `ppo`;
    w = −rollback where Â(r − 1) > 0 and r is outside the interval, else 1.
    Source: Wang et al., arXiv:1903.07940 (PPO-RB).
    Status: verified against its authors' code, wangyuhuix/TrulyPPO@7e80117, baselines/ppo2_AdaClip/ppo2.py
    (ratio_rollback, slope −0.3).
    Shapes: loss [N].
    Parameters:
        ratio_low, ratio_high: as in `ppo`.
        rollback: the negated slope beyond the bound; a weight, ≥ 0. 0 is `ppo`.
    Deviations: the paper's trust-region variants, which trigger on a KL, are not included; the anchor is μ.
    """

    name: ClassVar[str] = "truly_ppo"

    rollback: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(is_nonnegative(self.rollback), self, "rollback", "a finite number ≥ 0")

    def bounded(self, r: torch.Tensor) -> torch.Tensor:
        clipped = super().bounded(r)
        return clipped - self.rollback * (r - clipped)


@dataclass(frozen=True, kw_only=True)
class SPO(Objective):
    """Simple policy optimization: a quadratic in the ratio instead of the clip.

    Equation: J = r Â − |Â| / (2 epsilon) · (r − 1)²; w = 1 − sign(Â (r − 1)) · |r − 1| / epsilon, unbounded.
    Source: Xie et al., arXiv:2401.16025, Eq. 12.
    Status: verified against its authors' code, MyRepositories-hub/Simple-Policy-Optimization@9fdeda3,
    mujoco/trainer.py, compute_policy_loss.
    Shapes: loss [N].
    Parameters:
        epsilon: the |r − 1| at which the weight of a diverging token reaches 0, a ratio, > 0. The DRPO paper
            ran 12.5.
    Deviations: the anchor is the behavior policy μ.
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


@dataclass(frozen=True, kw_only=True)
class CISPO(Objective):
    """Clipped importance-sampling policy optimization: the ratio is a capped constant, and no token is dropped.

    Equation: J = sg(min(r, ratio_cap)) Â log π; w = min(1, ratio_cap / r).
    Source: MiniMax, arXiv:2506.13585 (CISPO).
    Status: verified against the paper, Eq. 4–5.
    Shapes: loss [N].
    Parameters:
        ratio_cap: the largest importance ratio to weigh with, a ratio, > 0.
    Deviations: the paper's lower bound on r, which it switches off, is left out; its bound 1 + ε_high is not published,
    the default is ours. The anchor is μ.
    """

    name: ClassVar[str] = "cispo"

    ratio_cap: float = 5.0

    def __post_init__(self) -> None:
        require(is_positive(self.ratio_cap), self, "ratio_cap", "a finite ratio > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        nothing = torch.zeros(len(batch), dtype=torch.bool, device=batch.logprobs.device)
        return masked_surrogate(batch, nothing, self.ratio_cap)


@dataclass(frozen=True, kw_only=True)
class AIPO(CISPO):
    """Asynchronous importance-weighted policy optimization: the one-sided cap of `cispo`, lower.

    Equation: J = sg(min(r, ratio_cap)) Â log π; w = min(1, ratio_cap / r).
    Source: LlamaRL, arXiv:2505.24034 (AIPO).
    Status: secondary, from the documentation of prime-rl (docs.primeintellect.ai/prime-rl/async), whose loss is named
    after it, and summaries of the paper, which agree.
    Shapes: loss [N].
    Parameters:
        ratio_cap: as in `cispo`; the paper suggests 2 to 10.
    Deviations: none known.
    """

    name: ClassVar[str] = "aipo"

    ratio_cap: float = 2.0


@dataclass(frozen=True, kw_only=True)
class TOPR(Objective):
    """Tapered off-policy REINFORCE: good responses are imitated, bad ones unlearned only while they are likely.

    Equation: J = Â log π where Â ≥ 0, sg(min(r, 1)) Â log π where Â < 0; w = 1/r, and min(1, 1/r).
    Source: Le Roux et al., arXiv:2503.14286.
    Status: secondary, from alibaba/ROLL@8eb27cc, roll/pipeline/agentic/agentic_actor_pg_worker.py, _compute_topr_loss,
    which quotes the paper's Eq. 8.
    Shapes: loss [N].
    Deviations: the paper tapers by the ratio of the whole response, here it is the token's; so nothing is lost when
    long responses make every sequence ratio vanish. The paper decides by the sign of the reward, here it is that of Â.
    """

    name: ClassVar[str] = "topr"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        r = ratio(batch.logprobs.detach(), batch.behavior_logprobs)
        return -weighted_logprobs(batch, torch.where(batch.advantages < 0, r.clamp(max=1), 1.0))


@dataclass(frozen=True, kw_only=True)
class SAPO(Objective):
    """Soft adaptive policy optimization: a sigmoid gate of the ratio instead of the clip.

    Equation: J = (4/τ) σ(τ(r − 1)) Â, with τ = tau_positive where Â > 0 and tau_negative elsewhere;
    w = 4 σ(τ(r − 1)) (1 − σ(τ(r − 1))), 1 at r = 1 and falling on both sides.
    Source: Gao et al., arXiv:2511.20347.
    Status: secondary, from verl-project/verl@1dda039, verl/trainer/ppo/core_algos.py, compute_policy_loss_sapo, and TRL
    1.16.0, grpo_trainer.py (loss_type sapo), which agree; neither is by its authors.
    Shapes: loss [N].
    Parameters:
        tau_positive: sharpness for positive advantages, in inverse ratios, > 0.
        tau_negative: sharpness for negative advantages, in inverse ratios, > 0.
    Deviations: the anchor is the behavior policy μ.
    """

    name: ClassVar[str] = "sapo"

    tau_positive: float = 1.0
    tau_negative: float = 1.05

    def __post_init__(self) -> None:
        require(is_positive(self.tau_positive), self, "tau_positive", "a finite number > 0")
        require(is_positive(self.tau_negative), self, "tau_negative", "a finite number > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        advantages = at_least_float32(batch.advantages)
        # One full tensor: where() of two numbers alone would be float32.
        tau = torch.where(advantages > 0, self.tau_positive, torch.full_like(advantages, self.tau_negative))
        gate = torch.sigmoid(tau * (ratio(batch.logprobs, batch.behavior_logprobs) - 1)) * 4 / tau
        return -gate * advantages


@dataclass(frozen=True, kw_only=True)
class Kimi(Objective):
    """The surrogate inside a window of log-ratios, with a squared log-ratio that pulls back everywhere.

    Equation: J = M r Â − coefficient · log² r, with M = 1 iff |log r| ≤ log_ratio_max;
    w = M − 2 coefficient · log r / (r Â).
    Source: Kimi k1.5, arXiv:2501.12599 (the squared log-ratio), and Kimi K2.5, arXiv:2602.02276, Eq. 1 (the window, and
    the squared log-ratio of a token).
    Status: verified against Kimi K2.5, arXiv:2602.02276, Section 4.4.2, Eq. 1.
    Shapes: loss [N].
    Parameters:
        log_ratio_max: half the width of the window, nats, > 0.
        coefficient: strength of the penalty, ≥ 0 and in units of the advantage: it is not scaled by |Â|.
    Deviations: k1.5 puts the squared log-ratio of the whole response and no window; K2.5 bounds the two sides apart,
    here they are equal. Its Eq. 1 prints a clipped ratio; its text, followed here, masks gradients by the log-ratio.
    Neither source publishes its constants: the defaults are ours. The anchor is μ.
    """

    name: ClassVar[str] = "kimi"
    homogeneous: ClassVar[bool] = from_parameters(lambda self: self.coefficient == 0)

    log_ratio_max: float = 0.5
    coefficient: float = 0.05

    def __post_init__(self) -> None:
        require(is_positive(self.log_ratio_max), self, "log_ratio_max", "a finite number of nats > 0")
        require(is_nonnegative(self.coefficient), self, "coefficient", "a finite number ≥ 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        log_r = log_ratio(batch.logprobs, batch.behavior_logprobs)
        return masked_surrogate(batch, log_r.abs() > self.log_ratio_max) + self.coefficient * log_r.square()


@dataclass(frozen=True, kw_only=True)
class MiniRL(RatioInterval):
    """Mask by the trainer's own ratio π/π_old, weigh by the full one π/μ.

    Equation: J = M (π/μ) Â, with M = 0 iff Â > 0 and π/π_old > 1 + ratio_high, or Â < 0 and π/π_old < 1 − ratio_low;
    w = M.
    Source: Zheng et al., arXiv:2512.01374 (MiniRL).
    Status: verified against the paper, Section 4.1, Eq. 7; the bounds Section 4.2.
    Shapes: loss [N]; proximal_logprobs [N].
    Parameters:
        ratio_low: how far π/π_old may fall below 1, a ratio, in (0, 1].
        ratio_high: how far π/π_old may rise above 1, a ratio, > 0.
    Deviations: none known in the gradient; the paper writes the weight as a constant in front of log π. Its experiments
    also cap that weight at 5. Its routing replay concerns the model and is not an objective's business.
    """

    name: ClassVar[str] = "minirl"
    needs: ClassVar[tuple[str, ...]] = ("proximal_logprobs",)

    ratio_high: float = 0.27

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        assert batch.proximal_logprobs is not None
        step = ratio(batch.logprobs.detach(), batch.proximal_logprobs)
        dropped = torch.where(batch.advantages > 0, step > 1 + self.ratio_high, step < 1 - self.ratio_low)
        return masked_surrogate(batch, dropped)
