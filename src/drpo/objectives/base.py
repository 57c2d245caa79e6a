"""What an objective is, and how one is looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

import torch

from drpo.batch import OPTIONAL_FIELDS, TokenBatch
from drpo.checks import shorten
from drpo.divergence import at_least_float32, ratio
from drpo.errors import ConfigError, DataError

Value = TypeVar("Value")


class _FromParameters(property):
    """A property that a class does not answer."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError("it depends on the parameters: ask an objective, not its class")
        return super().__get__(instance, owner)


def from_parameters(compute: Callable[[Any], Value]) -> Value:
    """The value of a class variable that each instance computes from its own parameters.

    For ``homogeneous: ClassVar[bool] = from_parameters(lambda self: self.coefficient == 0)``: typed as the value, so
    that a class may say ``homogeneous = False`` and another compute it. The class itself has no such attribute.
    """
    return cast(Value, _FromParameters(compute))


@dataclass(frozen=True, slots=True)
class ObjectiveOutput:
    """What an objective returns: ``loss`` ``[N]``, per token, to minimize; never masked, never reduced."""

    loss: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A per-token loss: a pure function of token tensors, its parameters the fields of a frozen dataclass.

    A subclass sets ``name`` (its registry key), writes :meth:`loss`, and lists in ``needs`` the optional
    :class:`TokenBatch` fields it reads. A class variable may depend on the parameters (:func:`from_parameters`), so
    that these are asked of an objective, not of its class.
    """

    name: ClassVar[str]
    #: Optional fields of TokenBatch that must be present.
    needs: ClassVar[tuple[str, ...]] = ()
    #: True when a token's loss depends on that token alone, so that a batch can be cut anywhere.
    token_local: ClassVar[bool] = True
    #: True when a token's loss depends on tokens of its own sequence alone, so that a batch can be cut between
    #: sequences. An objective that decides over a whole update says False.
    sequence_local: ClassVar[bool] = True
    #: True when scaling all advantages by c > 0 scales the gradient by c.
    homogeneous: ClassVar[bool] = True

    def __call__(self, batch: TokenBatch) -> ObjectiveOutput:
        """The per-token loss ``[N]`` of ``batch``, in float32 at least.

        Raises:
            DataError: ``batch`` is no TokenBatch, or lacks a field that the objective needs.
        """
        require_batch(batch)
        require_fields(batch, self.needs, f"objective {self.name!r}")
        # Widened once, here: a gradient that comes back over several casts would be summed in the narrow dtype.
        wide = at_least_float32(batch.logprobs)
        return ObjectiveOutput(self.loss(batch if wide is batch.logprobs else batch.with_logprobs(wide)))

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        """``[N]``, to minimize."""
        raise NotImplementedError(f"{type(self).__name__} does not define loss()")

    @property
    def topk(self) -> int:
        """How many of the most likely tokens it reads from a batch's top-K fields."""
        return 0

    @property
    def shift_bound(self) -> float | None:
        """The |π − μ| at which its trust region ends: its parameter ``delta``, a probability; None if it has none."""
        return getattr(self, "delta", None)

    def settings(self) -> dict[str, Any]:
        """The keyword arguments of :func:`drpo.make_objective` that make this objective, defaults included."""
        return {"name": self.name, **{key: getattr(self, key) for key in self.parameters()}}

    @classmethod
    def parameters(cls) -> dict[str, object]:
        """The parameters' names and defaults, in order."""
        return {field.name: field.default for field in dataclasses.fields(cls)}


def require_fields(batch: TokenBatch, needs: Iterable[str], who: str) -> None:
    """Raise a DataError that says how to provide it if ``batch`` lacks an optional field that ``who`` needs."""
    for field in needs:
        if getattr(batch, field) is None:
            shape, _, meaning = OPTIONAL_FIELDS[field].partition(", ")
            raise DataError(f"{who} needs {field} {shape}; pass TokenBatch(…, {field}=…): {meaning}")


def require_objective(objective: object) -> None:
    """Raise a ConfigError that says how to make an objective, unless ``objective`` is one."""
    if isinstance(objective, Objective):
        return
    name = objective.name if isinstance(objective, type) and issubclass(objective, Objective) else objective
    fix = f"drpo.make_objective({name!r})" if isinstance(name, str) else "drpo.make_objective(NAME, …)"
    raise ConfigError(f"objective must be an objective, got {shorten(repr(objective))}; make one: {fix}")


def require_batch(batch: object) -> None:
    """Raise a DataError that says how to make a TokenBatch, unless ``batch`` is one."""
    if not isinstance(batch, TokenBatch):
        raise DataError(
            f"batch must be a TokenBatch, got {type(batch).__name__}; make one: drpo.TokenBatch(logprobs, "
            "behavior_logprobs, advantages), or drpo.TokenBatch.from_padded with a mask"
        )


def require(condition: bool, owner: Any, parameter: str, allowed: str) -> None:
    """Raise a ConfigError that says what ``parameter`` of ``owner`` may be, unless ``condition`` holds."""
    if not condition:
        raise ConfigError(f"{owner.name}: {parameter} must be {allowed}, got {getattr(owner, parameter)!r}")


def is_diverging(advantages: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """``[N]`` bool: Â(r − 1) > 0, the tokens whose update would carry π further from μ."""
    return advantages * log_ratio > 0


def masked_surrogate(batch: TokenBatch, dropped: torch.Tensor, ratio_cap: float | None = None) -> torch.Tensor:
    """``[N]``: the surrogate's loss −r Â, constant 0 where ``dropped`` ``[N]``.

    With ``ratio_cap`` it is −sg(min(r, ratio_cap)) Â log π, whose gradient is that of the surrogate with the ratio
    capped.
    """
    advantages = at_least_float32(batch.advantages)
    if ratio_cap is None:
        gain = ratio(batch.logprobs, batch.behavior_logprobs) * advantages
    else:
        gain = weighted_logprobs(batch, ratio(batch.logprobs.detach(), batch.behavior_logprobs).clamp(max=ratio_cap))
    return torch.where(dropped, 0.0, -gain)


def weighted_logprobs(batch: TokenBatch, weight: torch.Tensor | float) -> torch.Tensor:
    """``[N]``: weight · Â · log π, a policy gradient whose ``weight`` (a constant) takes the ratio's place."""
    return weight * at_least_float32(batch.advantages) * at_least_float32(batch.logprobs)


def sequence_mean(values: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """``[N]``: at each token the mean of ``values`` ``[N]`` over its sequence."""
    return sequence_sum(values, batch) / sequence_sum(torch.ones_like(values), batch)


def sequence_sum(values: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """``[N]``: at each token the sum of ``values`` ``[N]`` over its sequence."""
    index = batch.sequence_index()
    return torch.zeros_like(values).index_add(0, index, values)[index]


def gradient_weight(objective: Objective, batch: TokenBatch) -> torch.Tensor:
    """The weight w by which ``objective`` scales the plain surrogate's gradient, token by token.

    Defined by −∂loss/∂logprobs = advantages · ratio · w (DRPO, arXiv:2606.09821, Table 1), and measured by
    differentiating the objective itself.

    Returns:
        ``[N]`` detached, in float32 at least; 1 is the plain surrogate, 0 no gradient, below 0 corrective.
        NaN where ``advantages == 0``.

    Raises:
        ConfigError: ``objective`` is no objective. DataError: as the objective's own.
    """
    require_objective(objective)
    require_batch(batch)
    # Widened first: the slope comes back in the dtype of the leaf, and a weight in bfloat16 has two digits.
    logprobs = at_least_float32(batch.logprobs.detach()).clone().requires_grad_(True)
    with torch.enable_grad():
        loss = objective(batch.with_logprobs(logprobs)).loss
        # An objective whose loss is constant everywhere (all tokens dropped) has no graph at all. A sum, because torch
        # loads sympy to check gradients that are handed to it.
        (slope,) = torch.autograd.grad((loss if loss.requires_grad else 0.0 * logprobs).sum(), logprobs)
    surrogate = batch.advantages * ratio(logprobs.detach(), batch.behavior_logprobs)
    return torch.where(batch.advantages == 0, torch.nan, -slope / surrogate + 0.0)  # + 0.0: no −0
