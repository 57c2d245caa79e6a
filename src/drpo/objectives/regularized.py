"""Objectives that pull back smoothly instead of dropping tokens."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.divergence import at_least_float32, binary_tv, ratio, relative_shift
from drpo.errors import DrpoWarning
from drpo.objectives.base import Objective, is_number, is_positive, require


@dataclass(frozen=True, kw_only=True)
class DRPO(Objective):
    """Divergence-regularized policy optimization: an advantage-weighted quadratic in π − μ.

    Equation: J = r Â − |Â| / (2 (delta − deadzone) μ) · max(0, |π − μ| − deadzone)²;
    w = 1 − sign(Â (r − 1)) · max(0, |π − μ| − deadzone) / (delta − deadzone).
    With deadzone = 0 this is the paper's r Â − |Â| / (2 delta) · μ (r − 1)²: the weight of a diverging token
    falls from 1 to 0 at |π − μ| = delta, DPPO's boundary, and is negative (corrective) beyond it.
    Source: Yao et al., arXiv:2606.09821, Eq. 8–9; the dead zone is this project's (docs: z → delta is the
    hard constraint).
    Shapes: loss [N].
    Parameters:
        delta: the |π − μ| at which a diverging token's weight is 0, a probability, > 0. |π − μ| never exceeds 1,
            so at delta ≥ 1 no token is ever held back (a warning says so once); the paper ran 12.5.
        deadzone: the |π − μ| up to which the surrogate is untouched, a probability, in [0, delta).
        advantage_weighted: False replaces |Â| by 1 in the penalty (the paper's Fig. 4 ablation); the boundary is
            then at delta · |Â| (without a dead zone).
    Deviations: log-ratios saturate at ±40 nats with their gradient kept; the released code clamps at ±20, which
    zeroes it.
    """

    name: ClassVar[str] = "drpo"

    delta: float = 0.15
    deadzone: float = 0.0
    advantage_weighted: bool = True

    def __post_init__(self) -> None:
        require(is_positive(self.delta), self, "delta", "a finite probability > 0")
        require(is_number(self.deadzone) and 0 <= self.deadzone < self.delta, self, "deadzone",
                f"a probability in [0, delta = {self.delta:g})")
        require(isinstance(self.advantage_weighted, bool), self, "advantage_weighted", "true or false")
        if self.delta >= 1:
            _warn_vacuous_delta()

    @property
    def homogeneous(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.advantage_weighted

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        advantages = at_least_float32(batch.advantages)
        r = ratio(batch.logprobs, batch.behavior_logprobs)
        relative = relative_shift(batch.logprobs, batch.behavior_logprobs)
        distance = binary_tv(batch.logprobs, batch.behavior_logprobs)
        # excess²/μ = |π − μ| · |r − 1| · outside², never dividing by a μ that may underflow.
        outside = 1.0 - self.deadzone / distance.clamp(min=self.deadzone) if self.deadzone else 1.0
        scale = advantages.abs() if self.advantage_weighted else 1.0
        penalty = scale * distance * relative.abs() * outside**2 / (2 * (self.delta - self.deadzone))
        return penalty - r * advantages


@functools.cache
def _warn_vacuous_delta() -> None:
    warnings.warn(
        "drpo: delta ≥ 1 is no boundary. |π − μ| never exceeds 1, so the gradient weight stays within "
        "[1 − 1/delta, 1 + 1/delta] and never reaches 0: the trust region holds nothing back. Use delta < 1 "
        "(0.1 to 0.3 is a good start) unless you reproduce the paper's 12.5 on purpose.",
        DrpoWarning,
        stacklevel=4,
    )
