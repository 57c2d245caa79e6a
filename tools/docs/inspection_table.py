"""The tables of docs/schema.md on ``drpo inspect --json``, from the types that it is made of."""

from __future__ import annotations

import types
import typing
from typing import Any

from drpo.inspection.json_keys import AROUND, FIGURES, KEYS
from drpo.inspection.result import Inspection

_NAMES = {str: "text", int: "whole number", float: "number", type(None): "null"}
_AROUND = {"schema": "whole number", "comparison": "Comparison", "checks": "list of Check"}


def block() -> str:
    """A table a class, the outermost first."""
    parts = [_table("", [(key, _AROUND[key], meaning) for key, meaning in AROUND.items()] + _rows(Inspection))]
    for kind in KEYS:
        if kind is not Inspection:
            parts.append(_table(kind.__name__, _rows(kind)))
    parts.append(_table("figures", [(key, "number or null", meaning) for key, meaning in FIGURES.items()]))
    return "\n\n".join(parts)


def _rows(kind: type) -> list[tuple[str, str, str]]:
    hints = typing.get_type_hints(kind)
    return [(key, _type(hints[key]), meaning) for key, meaning in KEYS[kind].items()]


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    head = [f"**{title}**", ""] if title else []
    lines = [f"| `{key}` | {kind} | {meaning} |" for key, kind, meaning in rows]
    return "\n".join([*head, "| key | type | meaning |", "| --- | --- | --- |", *lines])


def _type(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_type, inner))
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"object of {_type(inner[1])} by name"
    return _NAMES.get(hint) or hint.__name__
