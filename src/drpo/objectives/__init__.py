"""Every objective under its registry name, and the one way to make one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from drpo.checks import shorten
from drpo.errors import ConfigError, suggest
from drpo.objectives.aliases import alias_hint
from drpo.objectives.base import Objective, ObjectiveOutput, gradient_weight
from drpo.objectives.compose import modify
from drpo.objectives.divergence import CPPO, DPPOKL, DPPOTV, IPO, VACO, DPPOTopKKL, DPPOTopKTV
from drpo.objectives.masking import RatioIcePop, RECRing, RolloutIS
from drpo.objectives.modifier_registry import MODIFIERS
from drpo.objectives.modifiers import Modifier
from drpo.objectives.projection import TROLL
from drpo.objectives.ratio import AIPO, CISPO, GRPO, PPO, SAPO, SPO, TOPR, Kimi, MiniRL, Surrogate, TrulyPPO
from drpo.objectives.regularized import DRO, DRPO, MDPO, KLPenalty, MaskDRPO, TVPenalty
from drpo.objectives.sequence import FIPO, GMPO, GSPO, LUSPO, VESPO
from drpo.objectives.update import M2PO, ClipCov, KLCov

__all__ = ["MODIFIERS", "OBJECTIVES", "Modifier", "Objective", "ObjectiveOutput", "gradient_weight", "make_objective"]

#: Registry name → objective class.
OBJECTIVES: dict[str, type[Objective]] = {
    cls.name: cls
    for cls in (
        *(Surrogate, PPO, GRPO, TrulyPPO, SPO, CISPO, AIPO, TOPR, SAPO, Kimi, MiniRL),
        *(RatioIcePop, RolloutIS, RECRing),
        *(DPPOTV, IPO, DPPOKL, DPPOTopKTV, DPPOTopKKL, VACO, CPPO, TROLL),
        *(DRPO, MaskDRPO, KLPenalty, TVPenalty, MDPO, DRO),
        *(GSPO, LUSPO, GMPO, VESPO, FIPO),
        *(M2PO, ClipCov, KLCov),
    )
}

#: Objective → parameter in 0.1 → its name now; :func:`make_objective` and configurations take both.
RENAMED_PARAMETERS: dict[str, dict[str, str]] = {"mask_drpo": {"harmful_only": "diverging_only"}}


def renamed_parameters(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``parameters`` of the objective ``name``, by their present names.

    Raises:
        ConfigError: one is given by both names.
    """
    names = RENAMED_PARAMETERS.get(name, {})
    for old, new in names.items():
        if old in parameters and new in parameters:
            raise ConfigError(f"objective {name!r}: {old} is now called {new}; give {new} alone")
    return {names.get(key, key): value for key, value in parameters.items()}


def make_objective(
    name: str,
    *,
    anchor: str = "behavior",
    modifiers: Iterable[Modifier | str | Mapping[str, Any]] = (),
    **parameters: object,
) -> Objective:
    """The objective registered as ``name``, with ``parameters`` instead of its defaults.

    Args:
        name: one of :data:`OBJECTIVES`.
        anchor: ``behavior``: its ratio is π/μ. ``proximal``: π/π_old, with the batch's proximal_logprobs in the
            place of its behavior_logprobs.
        modifiers: factors on its loss, each a name of :data:`MODIFIERS` or a mapping with ``name`` and parameters.
        **parameters: of the objective, by name.

    Raises:
        ConfigError: unknown name or parameter (with the nearest known one), a value out of its range, or a modifier
            that would correct what the anchor corrects already.
    """
    if not isinstance(name, str) or name not in OBJECTIVES:
        raise ConfigError(f"unknown objective {shorten(repr(name))}.{alias_hint(str(name))}{suggest(name, OBJECTIVES)}")
    cls, parameters = OBJECTIVES[name], renamed_parameters(name, parameters)
    for parameter in parameters:
        if parameter not in cls.parameters():
            known = suggest(parameter, [*cls.parameters(), "anchor", "modifiers"])
            raise ConfigError(f"objective {name!r} has no parameter {parameter!r}.{known}")
    return modify(cls(**parameters), anchor, modifiers)
