"""Objectives that pull back smoothly instead of dropping tokens."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_nonnegative, is_number, is_positive
from drpo.divergence import at_least_float32, binary_tv, k1, k2, k3, k_reverse, log_ratio, ratio, relative_shift
from drpo.errors import DrpoWarning
from drpo.objectives.base import Objective, from_parameters, is_diverging, require, weighted_logprobs

#: Estimator name → per-token function of log r, as `kl_penalty` knows them.
KL_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3, "reverse": k_reverse}


def penalized_surrogate(batch: TokenBatch, penalty: torch.Tensor, advantage_weighted: bool) -> torch.Tensor:
    """``[N]``: the loss of r Â − c · ``penalty`` ``[N]``, with c = |Â| or 1."""
    advantages = at_least_float32(batch.advantages)
    scale = advantages.abs() if advantage_weighted else 1.0
    return scale * penalty - ratio(batch.logprobs, batch.behavior_logprobs) * advantages


def squared_shift(batch: TokenBatch, deadzone: float = 0.0) -> torch.Tensor:
    """``[N]``: max(0, |π − μ| − deadzone)² / μ, never dividing by a μ that may underflow."""
    relative = relative_shift(batch.logprobs, batch.behavior_logprobs)
    distance = binary_tv(batch.logprobs, batch.behavior_logprobs)
    # excess²/μ = |π − μ| · |r − 1| · outside²
    outside = 1.0 - deadzone / distance.clamp(min=deadzone) if deadzone else 1.0
    return distance * relative.abs() * outside**2


@dataclass(frozen=True, kw_only=True)
class DRPO(Objective):
    """Divergence-regularized policy optimization: an advantage-weighted quadratic in π − μ.

    Equation: J = r Â − |Â| / (2 (delta − deadzone) μ) · max(0, |π − μ| − deadzone)²;
    w = 1 − sign(Â (r − 1)) · max(0, |π − μ| − deadzone) / (delta − deadzone).
    With deadzone = 0 this is the paper's r Â − |Â| / (2 delta) · μ (r − 1)²: the weight of a diverging token
    falls from 1 to 0 at |π − μ| = delta, DPPO's boundary, and is negative (corrective) beyond it.
    Source: Yao et al., arXiv:2606.09821, Eq. 8–9; the dead zone is this project's (docs: z → delta is the
    hard constraint).
    Status: verified against its authors' code, Tencent-Hunyuan/UniRL@1a7b501, unirl/algorithms/drpo.py, _drpo_loss.
    Shapes: loss [N].
    Parameters:
        delta: the |π − μ| at which a diverging token's weight is 0, a probability, > 0. |π − μ| never exceeds 1,
            so at delta ≥ 1 no token is ever masked or corrective (a warning says so once); the paper ran 12.5.
        deadzone: the |π − μ| up to which the surrogate is untouched, a probability, in [0, delta).
        advantage_weighted: False replaces |Â| by 1 in the penalty (the paper's Fig. 4 ablation); the boundary is
            then at delta · |Â| (without a dead zone).
    Deviations: log-ratios saturate at ±40 nats with their gradient kept; the released code clamps at ±20, which
    zeroes it.
    """

    name: ClassVar[str] = "drpo"
    homogeneous: ClassVar[bool] = from_parameters(lambda self: self.advantage_weighted)

    delta: float = 0.15
    deadzone: float = 0.0
    advantage_weighted: bool = True

    def __post_init__(self) -> None:
        _check_delta(self, self.delta)
        require(
            is_number(self.deadzone) and 0 <= self.deadzone < self.delta,
            self,
            "deadzone",
            f"a probability in [0, delta = {self.delta:g})",
        )
        require(isinstance(self.advantage_weighted, bool), self, "advantage_weighted", "true or false")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        penalty = squared_shift(batch, self.deadzone) / (2 * (self.delta - self.deadzone))
        return penalized_surrogate(batch, penalty, self.advantage_weighted)


@dataclass(frozen=True, kw_only=True)
class MaskDRPO(Objective):
    """DRPO's regularizer only outside a region; inside it the plain surrogate.

    Equation: J = r Â − M |Â| / (2 delta) · μ (r − 1)², with M = 1 iff |π − μ| > boundary (and, if diverging_only,
    Â(r − 1) > 0); w = 1 − M sign(Â (r − 1)) · |π − μ| / delta, which jumps at the boundary.
    Source: Yao et al., arXiv:2606.09821, Fig. 11.
    Status: secondary, from readers' summaries of the paper's Fig. 11; its authors' drpo.py has no such option.
    Shapes: loss [N].
    Parameters:
        delta: the |π − μ| at which a diverging token's weight is 0, a probability, > 0.
        boundary: the |π − μ| up to which the surrogate is untouched, a probability, ≥ 0; 0 is `drpo`.
        diverging_only: True regularizes diverging tokens only; with boundary = delta the region then is DPPO's.
    Deviations: the paper names the variant in a figure and prints no formula for it, so both readings are here.
    """

    name: ClassVar[str] = "mask_drpo"

    delta: float = 0.15
    boundary: float = 0.15
    diverging_only: bool = False

    def __post_init__(self) -> None:
        _check_delta(self, self.delta)
        require(is_nonnegative(self.boundary), self, "boundary", "a finite probability ≥ 0")
        require(isinstance(self.diverging_only, bool), self, "diverging_only", "true or false")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        here = batch.logprobs.detach()
        outside = binary_tv(here, batch.behavior_logprobs) > self.boundary
        if self.diverging_only:
            outside = outside & is_diverging(batch.advantages, log_ratio(here, batch.behavior_logprobs))
        penalty = torch.where(outside, squared_shift(batch) / (2 * self.delta), 0.0)
        return penalized_surrogate(batch, penalty, advantage_weighted=True)


@dataclass(frozen=True, kw_only=True)
class KLPenalty(Objective):
    """The surrogate with a token-level KL estimate as a penalty.

    Equation: J = r Â − coefficient · c · est(r), with c = |Â| or 1; est is k1 = −log r, k2 = ½ log² r,
    k3 = r − 1 − log r (both for KL(μ‖π)), or reverse = r log r − (r − 1) (for KL(π‖μ));
    w = 1 − coefficient · c · est′ / (r Â), est′ = dest/dlog r = −1, log r, r − 1, r log r: a function of the ratio
    alone if c = |Â|.
    Source: Yao et al., arXiv:2606.09821, Fig. 5 (ablation); the estimators are J. Schulman's "Approximating KL
    divergence" (2020).
    Status: secondary, from readers' summaries of the paper's Fig. 5; its authors' drpo.py has no such option.
    Shapes: loss [N].
    Parameters:
        estimator: k1, k2, k3 or reverse.
        coefficient: strength, ≥ 0; in units of the advantage unless advantage_weighted.
        advantage_weighted: whether the penalty is scaled by |Â|.
    Deviations: the paper does not publish the coefficients of its ablation; the default is ours.
    """

    name: ClassVar[str] = "kl_penalty"
    homogeneous: ClassVar[bool] = from_parameters(lambda self: self.advantage_weighted or self.coefficient == 0)

    estimator: str = "k3"
    coefficient: float = 0.1
    advantage_weighted: bool = True

    def __post_init__(self) -> None:
        known = isinstance(self.estimator, str) and self.estimator in KL_ESTIMATORS
        require(known, self, "estimator", f"one of {', '.join(KL_ESTIMATORS)}")
        require(is_nonnegative(self.coefficient), self, "coefficient", "a finite number ≥ 0")
        require(isinstance(self.advantage_weighted, bool), self, "advantage_weighted", "true or false")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        estimate = KL_ESTIMATORS[self.estimator](log_ratio(batch.logprobs, batch.behavior_logprobs))
        return penalized_surrogate(batch, self.coefficient * estimate, self.advantage_weighted)


@dataclass(frozen=True, kw_only=True)
class TVPenalty(Objective):
    """The surrogate with the total variation as a penalty.

    Equation: J = r Â − coefficient · c · |r − 1|, with c = |Â| or 1; w = 1 − coefficient · c · sign(r − 1) / Â: two
    values, whatever the distance.
    Source: Yao et al., arXiv:2606.09821, Fig. 5 (ablation).
    Status: secondary, from readers' summaries of the paper's Fig. 5; its authors' drpo.py has no such option.
    Shapes: loss [N].
    Parameters:
        coefficient: strength, ≥ 0; in units of the advantage unless advantage_weighted.
        advantage_weighted: whether the penalty is scaled by |Â|.
    Deviations: the paper does not publish the coefficient of its ablation; the default is ours. At r = 1 exactly the
    slope of |r − 1| is taken to be 0.
    """

    name: ClassVar[str] = "tv_penalty"
    homogeneous: ClassVar[bool] = from_parameters(lambda self: self.advantage_weighted or self.coefficient == 0)

    coefficient: float = 0.1
    advantage_weighted: bool = True

    def __post_init__(self) -> None:
        require(is_nonnegative(self.coefficient), self, "coefficient", "a finite number ≥ 0")
        require(isinstance(self.advantage_weighted, bool), self, "advantage_weighted", "true or false")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        distance = relative_shift(batch.logprobs, batch.behavior_logprobs).abs()
        return penalized_surrogate(batch, self.coefficient * distance, self.advantage_weighted)


@dataclass(frozen=True, kw_only=True)
class MDPO(Objective):
    """Mirror descent policy optimization: the surrogate with KL(π‖μ), not scaled by the advantage.

    Equation: J = r Â − (1/step_size) · (r log r − (r − 1)); w = 1 − log r / (step_size · Â), which is 0 where
    π = μ exp(step_size · Â), the mirror-descent step.
    Source: Tomar et al., arXiv:2005.09814 (on-policy MDPO).
    Status: verified against its authors' code, manantomar/Mirror-Descent-Policy-Optimization@c9bd3ba, mdpo_on/mdpo.py
    (multistep-SGD).
    Shapes: loss [N].
    Parameters:
        step_size: of the mirror descent, in inverse units of the advantage, > 0; the paper anneals it, here the caller
            may make a new objective for each step.
    Deviations: the KL is estimated at the sampled token (unbiased under μ) where the paper sums over the actions.
    """

    name: ClassVar[str] = "mdpo"
    homogeneous: ClassVar[bool] = False

    step_size: float = 1.0

    def __post_init__(self) -> None:
        require(is_positive(self.step_size), self, "step_size", "a finite number > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        estimate = k_reverse(log_ratio(batch.logprobs, batch.behavior_logprobs))
        return penalized_surrogate(batch, estimate / self.step_size, advantage_weighted=False)


@dataclass(frozen=True, kw_only=True)
class DRO(Objective):
    """Direct reward optimization: a policy gradient without importance ratio, and a penalty on the squared log-ratio.

    Equation: J = Â log π − (beta/2) log² r; w = 1/r − beta log r / (r Â), which is 0 where log r = Â / beta.
    Source: Richemond et al., arXiv:2405.19107 (DRO), with the advantage of one's choice in the place of its value
    function; for language models Kimi k1.5, arXiv:2501.12599.
    Status: secondary, from verl 0.9.1, verl/trainer/ppo/core_algos.py, compute_policy_loss_dro, and Tinker's
    documentation (tinker-docs.thinkingmachines.ai/tinker/losses/dro), which agree.
    Shapes: loss [N].
    Parameters:
        beta: strength of the penalty, ≥ 0 and in units of the advantage: it is not scaled by |Â|. 0 is the policy
            gradient, verl's `gpg`.
    Deviations: the default is the one of Tinker's example; verl has none. It is `kimi` for no parameters: with
    coefficient = beta/2 the penalties are equal, but the first term of `kimi` is r Â. The two have the same gradient at
    r = 1.
    """

    name: ClassVar[str] = "dro"
    homogeneous: ClassVar[bool] = from_parameters(lambda self: self.beta == 0)

    beta: float = 0.05

    def __post_init__(self) -> None:
        require(is_nonnegative(self.beta), self, "beta", "a finite number ≥ 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        penalty = log_ratio(batch.logprobs, batch.behavior_logprobs).square() * (self.beta / 2)
        return penalty - weighted_logprobs(batch, 1.0)


def _check_delta(objective: Objective, delta: float) -> None:
    """Refuse what is no bound, and warn of one that bounds nothing."""
    require(is_positive(delta), objective, "delta", "a finite probability > 0")
    if delta >= 1:
        _warn_vacuous_delta()


@functools.cache
def _warn_vacuous_delta() -> None:
    warnings.warn(
        "drpo: delta ≥ 1 bounds nothing. |π − μ| never exceeds 1, so the gradient weight stays within "
        "[1 − 1/delta, 1 + 1/delta] and never reaches 0: no token is masked or corrective. Use delta < 1 "
        "(0.1 to 0.3 is a good start) unless you reproduce the paper's 12.5 on purpose.",
        DrpoWarning,
        stacklevel=5,
    )
