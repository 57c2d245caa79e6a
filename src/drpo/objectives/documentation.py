"""What the docstrings say, taken apart: they are the one home of equations, ranges and sources."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, dataclass, fields
from typing import Any

from drpo.errors import ConfigError, suggest
from drpo.objectives import MODIFIERS, OBJECTIVES, Modifier, Objective

#: How a docstring's Status begins → the status. What follows names a section, an equation or a file.
STATUSES = {"verified against ": "verified", "secondary, from ": "secondary"}
HEADS = ("Equation", "Source", "Status", "Anchor", "Shapes", "Parameters", "Deviations")


@dataclass(frozen=True, slots=True)
class Documentation:
    """One objective or modifier: its name, defaults, first line, whole docstring, and sections by their heads."""

    name: str
    defaults: dict[str, Any]
    summary: str
    text: str
    sections: dict[str, str]

    @property
    def signature(self) -> str:
        """``name(parameter=default, …)``."""
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.defaults.items())})"

    @property
    def status(self) -> str:
        """How the formula is known.

        ``verified``: compared with the text of its paper, or with the code of its authors or the code that they built
        on. ``secondary``: known from another document. Either way the section names what it was compared with.

        Raises:
            ConfigError: the docstring's Status begins with neither.
        """
        given = self.sections.get("Status", "")
        for start, status in STATUSES.items():
            if given.startswith(start):
                return status
        raise ConfigError(
            f"the Status of {self.name} must begin with {' or '.join(map(repr, STATUSES))}, got {given!r}"
        )


def documentation(name: str) -> list[Documentation]:
    """Of the objective and of the modifier registered as ``name``, the objective first where both are.

    The registries are apart, because a configuration never takes one for the other: `icepop` is an objective that
    masks by π/μ, and a modifier that masks by π_old/μ.

    Raises:
        ConfigError: neither is (with the nearest known name).
    """
    found = [registry[name] for registry in (OBJECTIVES, MODIFIERS) if name in registry]
    if not found:
        raise ConfigError(f"unknown objective {name!r}.{suggest(name, {**OBJECTIVES, **MODIFIERS})}")
    return [document(kind) for kind in found]


def document(kind: type[Objective] | type[Modifier]) -> Documentation:
    """Of one class."""
    text = inspect.getdoc(kind) or ""
    summary, _, rest = text.partition("\n\n")
    parts = re.split(rf"^({'|'.join(HEADS)}): ?", rest, flags=re.MULTILINE)
    bodies = zip(parts[1::2], parts[2::2], strict=True)
    sections = {head: re.sub(r"\s*\n\s*", " ", body).strip() for head, body in bodies}
    defaults = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    return Documentation(kind.name, defaults, summary, text, sections)
