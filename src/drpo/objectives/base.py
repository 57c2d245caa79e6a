"""What an objective is, and how one is looked up."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.divergence import at_least_float32, ratio
from drpo.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class ObjectiveOutput:
    """What an objective returns: ``loss`` ``[N]``, per token, to minimise; never masked, never reduced."""

    loss: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A per-token loss: a pure function of token tensors, its parameters the fields of a frozen dataclass.

    A subclass sets ``name`` (its registry key), writes :meth:`loss`, and lists in ``needs`` the optional
    :class:`TokenBatch` fields it reads.
    """

    name: ClassVar[str]
    #: Optional fields of TokenBatch that must be present.
    needs: ClassVar[tuple[str, ...]] = ()
    #: True when a token's loss depends on that token alone, so that a batch can be cut anywhere.
    token_local: ClassVar[bool] = True
    #: True when scaling all advantages by c > 0 scales the gradient by c.
    homogeneous: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> ObjectiveOutput:
        """The per-token loss ``[N]`` of ``batch``, in float32 at least.

        Raises:
            DataError: the batch lacks a field that the objective needs.
        """
        for field in self.needs:
            if getattr(batch, field) is None:
                raise DataError(f"objective {self.name!r} needs {field} [N]; pass TokenBatch(…, {field}=…)")
        # Widened once, here: a gradient that comes back over several casts would be summed in the narrow dtype.
        wide = at_least_float32(batch.logprobs)
        return ObjectiveOutput(self.loss(batch if wide is batch.logprobs else batch.with_logprobs(wide)))

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        """``[N]``, to minimise."""
        raise NotImplementedError(f"{type(self).__name__} does not define loss()")

    @classmethod
    def parameters(cls) -> dict[str, object]:
        """The parameters' names and defaults, in order."""
        return {field.name: field.default for field in dataclasses.fields(cls)}


def require(condition: bool, objective: Objective, parameter: str, allowed: str) -> None:
    """Raise a ConfigError that says what ``parameter`` may be, unless ``condition`` holds."""
    if not condition:
        raise ConfigError(f"{objective.name}: {parameter} must be {allowed}, got {getattr(objective, parameter)!r}")


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite real number (not a bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: object) -> bool:
    """Whether ``value`` is a finite number above zero."""
    return is_number(value) and value > 0  # pyright: ignore[reportOperatorIssue]


def harmful(advantages: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """``[N]`` bool: Â(r − 1) > 0, the tokens whose update would carry π further from μ."""
    return advantages * log_ratio > 0


def gradient_weight(objective: Objective, batch: TokenBatch) -> torch.Tensor:
    """The weight w by which ``objective`` scales the plain surrogate's gradient, token by token.

    Defined by −∂loss/∂logprobs = advantages · ratio · w (DRPO, arXiv:2606.09821, Table 1), and measured by
    differentiating the objective itself.

    Returns:
        ``[N]`` detached, in float32 at least; 1 is the plain surrogate, 0 no gradient, below 0 corrective.
        NaN where ``advantages == 0``.
    """
    # Widened first: the slope comes back in the dtype of the leaf, and a weight in bfloat16 has two digits.
    logprobs = at_least_float32(batch.logprobs.detach()).clone().requires_grad_(True)
    with torch.enable_grad():
        loss = objective(batch.with_logprobs(logprobs)).loss
        # An objective whose loss is constant everywhere (all tokens dropped) has no graph at all.
        (slope,) = torch.autograd.grad(loss.sum() + 0.0 * logprobs.sum(), logprobs)
    surrogate = batch.advantages * ratio(logprobs.detach(), batch.behavior_logprobs)
    return torch.where(batch.advantages == 0, torch.nan, -slope / surrogate + 0.0)  # + 0.0: no −0
