"""What the contract test must know of an objective; the facts themselves are in facts_*.py, one file a family.

Nothing in any of them uses the code under test: the weights are those of the papers, in π and μ, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from support.batches import Tokens

Parameters = Mapping[str, Any]
Row = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class Case:
    """One set of parameters with tokens worked out by hand: rows of (π, μ, Â, loss, weight)."""

    parameters: dict[str, Any]
    rows: Sequence[Row]
    sequence_ids: Sequence[int] | None = None
    optional: dict[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    cases: Sequence[Case]
    #: (all parameters, tokens) → w ``[N]`` with −∂loss/∂logprobs = Â r w.
    weight: Callable[[Parameters, Tokens], torch.Tensor]
    #: Whether the loss holds a factor constant that depends on π, so that no finite difference of the loss is
    #: its gradient.
    stop_gradient: Callable[[Parameters], bool] = lambda parameters: False
    #: Parameters of which 0 is an allowed value.
    zero_allowed: Sequence[str] = ()


def signed(tokens: Tokens, size: torch.Tensor) -> torch.Tensor:
    """sign(Â (r − 1)) · size."""
    return torch.where(tokens.diverging, size, -size)


def kept(dropped: torch.Tensor) -> torch.Tensor:
    """The weight of a mask: 0 where dropped, else 1."""
    return (~dropped).double()


def capped(weight: torch.Tensor, tokens: Tokens, cap: float | None) -> torch.Tensor:
    """``weight`` with the ratio that it stands for capped."""
    return weight if cap is None else weight * tokens.ratio.clamp(max=cap) / tokens.ratio


def of_sequences(tokens: Tokens, function: Callable[[Tokens], torch.Tensor]) -> torch.Tensor:
    """``function`` of each sequence by itself, one after the other."""
    parts = [function(tokens.select(tokens.sequence_ids == i)) for i in tokens.sequence_ids.unique().tolist()]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
