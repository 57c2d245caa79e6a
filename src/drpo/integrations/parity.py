"""One fixed batch through a host's own loss path and through ours: do the gradients on the log-probabilities agree?

A host provides a :class:`HostPath` in its module ``parity``. Its tests call :func:`compare`, `make parity` writes the
same figures down, and `drpo doctor HOST --parity` compares with the host that is installed.
The reference is float64 autograd of ``drpo.aggregate(objective(batch).loss, …)``.

Shapes: ``B`` sequences, ``T`` positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch

import drpo
from drpo.aggregation import Mode
from drpo.objectives import OBJECTIVES

#: Tokens that a sequence-sum is divided by; longer than every sequence of the batch.
HORIZON = 32
LENGTHS = (24, 1, 17, 9, 24, 3, 12, 20)
ADVANTAGES = (1.0, -0.5, 0.25, -1.0, 0.0, 2.0, -0.125, 0.75)
#: Type that a host's path keeps → the relative difference of gradients that still means agreement.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
#: What padded positions are made to hold: nothing of it may matter.
PADDING = (0.0, -100.0, 5.0)
#: Hosts that pack rows: tokens of each prompt, in turn, whose log-probabilities must not count.
PROMPTS = (3, 1, 2, 5)
#: And masked tokens that stay at the end of a response, as a tool's answer does; the other padding is cut off.
MASKED = (0, 2, 1)


@dataclass(frozen=True)
class Padded:
    """``[B, T]`` tensors, ``advantages`` ``[B]``; what lies outside ``mask`` is arbitrary."""

    logprobs: torch.Tensor
    behavior_logprobs: torch.Tensor
    proximal_logprobs: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor

    def to(self, dtype: torch.dtype) -> Padded:
        return replace(self, **{f.name: getattr(self, f.name).to(dtype) for f in fields(self) if f.name != "mask"})

    def filled(self, value: float) -> Padded:
        """The same batch with ``value`` in every padded position."""
        names = ("logprobs", "behavior_logprobs", "proximal_logprobs")
        return replace(self, **{name: torch.where(self.mask, getattr(self, name), value) for name in names})

    def rows(self, start: int, end: int) -> Padded:
        return Padded(*(getattr(self, f.name)[start:end] for f in fields(self)))

    def kept_lengths(self, masked: tuple[int, ...] = MASKED) -> list[int]:
        """Tokens of each response, with as many ``masked`` ones behind it, in turn, as fit."""
        lengths = self.mask.sum(1).tolist()
        return [min(length + masked[row % len(masked)], self.mask.shape[1]) for row, length in enumerate(lengths)]

    def micro_batches(self, count: int) -> list[Padded]:
        size = len(self.mask) // count
        return [self.rows(i * size, (i + 1) * size) for i in range(count)]


def fixed_batch(padding: float = 0.0) -> Padded:
    """Eight ragged sequences, float32 values in float64: both signs of advantage and none, μ from e⁻¹⁷ to nearly 1.

    A third of the tokens are on policy up to an engine's noise, a third moved a little, a third far.
    """
    generator = torch.Generator().manual_seed(20260609)
    shape = (len(LENGTHS), max(LENGTHS))

    def normal() -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    # log-odds with a long tail below: half of the tokens are nearly certain, some hardly ever sampled
    odds = 3.0 + 2.0 * normal() - 6.0 * normal().abs() * (torch.rand(shape, generator=generator) < 0.4)
    size = torch.tensor([1e-5, 0.1, 1.2], dtype=torch.float64)[torch.randint(3, shape, generator=generator)]
    mu = torch.nn.functional.logsigmoid(odds)
    pi = torch.nn.functional.logsigmoid(odds + size * normal())
    old = torch.nn.functional.logsigmoid(odds + 0.1 * size * normal())
    mask = torch.arange(shape[1]).expand(shape) < torch.tensor(LENGTHS).unsqueeze(1)
    batch = Padded(pi, mu, old, torch.tensor(ADVANTAGES, dtype=torch.float64), mask)
    return batch.to(torch.float32).to(torch.float64).filled(padding)


def reference(settings: Mapping[str, Any], padded: Padded, mode: Mode) -> torch.Tensor:
    """``[B, T]`` float64: ∂loss/∂logprobs by us, for the whole batch as one optimizer step."""
    leaf = padded.logprobs.double().clone().requires_grad_(True)
    batch = drpo.TokenBatch.from_padded(
        leaf,
        padded.behavior_logprobs.double(),
        padded.advantages.double(),
        padded.mask,
        proximal_logprobs=padded.proximal_logprobs.double(),
    )
    loss = drpo.make_objective(**settings)(batch).loss
    # Every row counts, also one whose tokens are all dropped: the denominator is given, not counted.
    denominator = int(padded.mask.sum()) if mode == "token_mean" else len(padded.mask)
    total = drpo.aggregate(loss, batch, mode, denominator, HORIZON if mode == "sequence_sum" else None)
    (gradient,) = torch.autograd.grad(total, leaf)
    return gradient


#: Parameters, an anchor and a modifier that a host has to hand on.
BEYOND_DEFAULTS: tuple[dict[str, Any], ...] = (
    {"name": "drpo", "delta": 0.05},
    {"name": "grpo", "anchor": "proximal", "modifiers": ["tis"]},
)


def effect(settings: Mapping[str, Any]) -> float:
    """How far the settings move the gradient from that of the objective's defaults, as :func:`difference` says it."""
    plain = reference({"name": settings["name"]}, fixed_batch(), "token_mean")
    return difference(reference(settings, fixed_batch(), "token_mean"), plain)


class HostPath(Protocol):
    """A host's own loss path, from its tensors to the gradient on the log-probabilities."""

    #: The host's name and installed version, for the table.
    host: str
    version: str
    #: The widest floating-point type that its path keeps.
    dtype: torch.dtype
    #: The aggregations that the host can express, and the objectives that it can compute (see :func:`names`).
    modes: tuple[Mode, ...]
    objectives: tuple[str, ...]

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        """``[B, T]``: ∂loss/∂logprobs of one optimizer step over ``padded``, in that many equal micro-batches."""
        ...


@dataclass(frozen=True)
class Agreement:
    """The largest relative differences found for one objective: max \\|a − b\\| / max \\|b\\| over a gradient."""

    objective: str
    mode: str
    gradient: float
    micro_batches: float
    padding: float

    @property
    def worst(self) -> float:
        return max(self.gradient, self.micro_batches, self.padding)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """max \\|found − expected\\| / max \\|expected\\|; infinite where ``found`` is not finite."""
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def compare(path: HostPath, settings: Mapping[str, Any], mode: Mode) -> Agreement:
    """Host against reference; 2 and 4 micro-batches against the reference; other padding against the reference."""
    padded = fixed_batch().to(path.dtype)
    expected = reference(settings, padded, mode)
    assert float(expected[~padded.mask].abs().max()) == 0.0
    return Agreement(
        objective=settings["name"],
        mode=mode,
        gradient=difference(path.gradient(settings, padded, mode), expected),
        micro_batches=max(difference(path.gradient(settings, padded, mode, count), expected) for count in (2, 4)),
        padding=max(difference(path.gradient(settings, padded.filled(fill), mode), expected) for fill in PADDING),
    )


def tolerance(path: HostPath) -> float:
    """What agreement means for ``path``."""
    return TOLERANCE[path.dtype]


def names(gives: tuple[str, ...] = (), homogeneous_only: bool = False) -> list[str]:
    """The objectives that a host can compute which hands over ``gives`` and cuts updates into micro-batches."""
    made = [drpo.make_objective(name) for name in OBJECTIVES]
    return [
        objective.name
        for objective in made
        if set(objective.needs) <= set(gives)
        and objective.sequence_local
        and (objective.homogeneous or not homogeneous_only)
    ]
