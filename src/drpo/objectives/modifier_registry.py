"""Every modifier under its registry name, and the one way to make one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from drpo.errors import ConfigError, suggest
from drpo.objectives.centering import ScoreCentering
from drpo.objectives.modifiers import MIS, OPSM, TIS, EntropyTop, IcePop, Modifier

#: Registry name → modifier class.
MODIFIERS: dict[str, type[Modifier]] = {cls.name: cls for cls in (TIS, IcePop, MIS, OPSM, EntropyTop, ScoreCentering)}


def make_modifier(value: Modifier | str | Mapping[str, Any]) -> Modifier:
    """A modifier from itself, its name, or a mapping with ``name`` and parameters.

    Raises:
        ConfigError: unknown name or parameter (with the nearest known one), or a value out of its range.
    """
    if isinstance(value, Modifier):
        return value
    settings = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"a modifier is a name or {{name: …, parameter: …}}, got {value!r}. Known: {', '.join(sorted(MODIFIERS))}."
        )
    if name not in MODIFIERS:
        raise ConfigError(f"unknown modifier {name!r}.{suggest(name, MODIFIERS)}")
    known = [field.name for field in dataclasses.fields(MODIFIERS[name])]
    for parameter in settings:
        if parameter not in known:
            raise ConfigError(f"modifier {name!r} has no parameter {parameter!r}.{suggest(str(parameter), known)}")
    return MODIFIERS[name](**settings)
