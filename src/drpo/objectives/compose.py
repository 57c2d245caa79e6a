"""Which policy an objective is anchored on, and the factors on its loss.

Three policies are in play: μ sampled (the rollout engine), π_old is what the trainer computes at the same weights, π is
trained. π_old/μ is the mismatch between the two engines, π/π_old how stale the sample is; r = π/μ is their product.
An objective anchored on μ (``anchor="behavior"``, the default) bounds the product, and its gradient is already
weighed by π/μ. Anchored on π_old (``anchor="proximal"``, "decoupled") it bounds the staleness alone, and the
mismatch is left to a modifier: `grpo` with `tis` has the ratio π/π_old times min(π_old/μ, C).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.errors import ConfigError
from drpo.objectives.base import Objective, from_parameters, require, require_fields
from drpo.objectives.modifier_registry import make_modifier
from drpo.objectives.modifiers import Modifier

ANCHORS = ("behavior", "proximal")


@dataclass(frozen=True, kw_only=True)
class Modified(Objective):
    """An objective on an anchor of one's choice, changed by its modifiers in their order.

    Equation: J = J_objective(anchor) · Π sg(factor), with the objective's μ replaced by π_old if anchor = proximal.
    Score centering is no factor: it adds a term.
    """

    name: ClassVar[str] = from_parameters(lambda self: self.objective.name)
    needs: ClassVar[tuple[str, ...]] = from_parameters(lambda self: self._needs())
    token_local: ClassVar[bool] = from_parameters(lambda self: all(part.token_local for part in self._parts()))
    sequence_local: ClassVar[bool] = from_parameters(lambda self: all(part.sequence_local for part in self._parts()))
    homogeneous: ClassVar[bool] = from_parameters(lambda self: self.objective.homogeneous)

    objective: Objective
    anchor: str = "behavior"
    modifiers: tuple[Modifier, ...] = ()

    def __post_init__(self) -> None:
        require(isinstance(self.anchor, str) and self.anchor in ANCHORS, self, "anchor", f"one of {', '.join(ANCHORS)}")
        if self.anchor == "proximal" and self.objective.topk:
            raise ConfigError(
                f"{self.name}: anchor=proximal needs the top K of π_old, which a batch does not hold; "
                "its top-K fields are those of μ. Use anchor=behavior."
            )
        for modifier in self.modifiers:
            modifier.check(self.objective, self.anchor)
        twice = [modifier.name for modifier in self.modifiers if modifier.corrects]
        if twice and self.anchor == "behavior":
            raise ConfigError(
                f"{self.name} is anchored on μ: its ratio π/μ corrects π_old/μ already, and {twice[0]} "
                "would do so a second time. Use anchor=proximal (the ratio is then π/π_old), or leave "
                f"{twice[0]} out."
            )
        if len(twice) > 1:
            raise ConfigError(f"{self.name}: {' and '.join(twice)} would each correct π_old/μ. Keep one of them.")

    @property
    def topk(self) -> int:
        return max(part.topk for part in self._parts())

    @property
    def shift_bound(self) -> float | None:
        return self.objective.shift_bound

    def _parts(self) -> tuple[Objective | Modifier, ...]:
        return (self.objective, *self.modifiers)

    def _needs(self) -> tuple[str, ...]:
        anchor = ("proximal_logprobs",) if self.anchor == "proximal" else ()
        every = (*self.objective.needs, *anchor, *(need for modifier in self.modifiers for need in modifier.needs))
        return tuple(dict.fromkeys(every))

    def settings(self) -> dict[str, Any]:
        modifiers = [modifier.settings() for modifier in self.modifiers]
        return {**self.objective.settings(), "anchor": self.anchor, "modifiers": modifiers}

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        anchored = batch
        if self.anchor == "proximal":
            assert batch.proximal_logprobs is not None
            anchored = replace(batch, behavior_logprobs=batch.proximal_logprobs, validate=False)
        loss = self.objective.loss(anchored)
        for modifier in self.modifiers:
            require_fields(batch, modifier.needs, f"modifier {modifier.name!r}")
            loss = modifier.applied(loss, self.objective, batch)
        return loss


def modify(objective: Objective, anchor: str, modifiers: Iterable[Any] | str | Mapping[str, Any]) -> Objective:
    """``objective`` itself where there is nothing to change, else the :class:`Modified` one."""
    if isinstance(modifiers, str | Mapping | Modifier):
        modifiers = [modifiers]
    if not isinstance(modifiers, Iterable):
        raise ConfigError(
            f"{objective.name}: modifiers must be a list of names or {{name: …, parameter: …}}, got "
            f"{modifiers!r}. Leave it out for none."
        )
    made = tuple(make_modifier(value) for value in modifiers)
    if anchor == "behavior" and not made:
        return objective
    return Modified(objective=objective, anchor=anchor, modifiers=made)
