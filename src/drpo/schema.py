"""The ``schema`` number of everything that is written, and what a reader does with it.

A number belongs to a kind of file. It grows when readers of the version before would misread the file, or miss what
they need; fields that are only added leave it as it is. A reader takes every older number and refuses a newer one by
name. Files from before there were numbers have schema 0. A new number gets a line in docs/schema.md, and its reader
turns older values into the new ones where it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drpo.errors import DataError, SchemaError

KEY = "schema"
#: Kind of file → the number that this version writes, and the newest that it reads.
SCHEMAS = {
    "manifest": 1,
    "metrics": 2,
    "rollouts": 1,
    "tokens": 1,
    "checkpoint": 1,
    "study": 2,
    "journal": 1,
    "reused": 1,
    "choices": 1,
    "results": 2,
    "curves": 1,
    "verdicts": 2,
    "inspection": 2,
    "evaluation": 1,
    "sample": 1,
    "comparison": 1,
    "bench": 1,
}
#: Name of a metric in metrics, results and inspection before schema 2 → its name now.
RENAMED_METRICS = {
    "harmful_share": "diverging_share",
    "harmful_share_positive": "diverging_share_positive",
    "harmful_share_negative": "diverging_share_negative",
    "dropped_share": "masked_share",
    "dropped_share_positive": "masked_share_positive",
    "dropped_share_negative": "masked_share_negative",
    "dropped_mass": "masked_mass",
}


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with the present names of metrics, in the mappings inside it too."""
    return {
        RENAMED_METRICS.get(key, key): renamed(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def numbered(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with the number of their kind in front, in place of one that they had."""
    return {KEY: SCHEMAS[kind], **{key: value for key, value in values.items() if key != KEY}}


def unnumbered(kind: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """``values`` without their number, once :func:`check_schema` has passed it: what is written again gets its own."""
    check_schema(kind, values, where)
    return {key: value for key, value in values.items() if key != KEY}


def check_schema(kind: str, values: object, where: str) -> int:
    """The number that ``values`` were written with; 0 where they have none.

    Args:
        kind: a key of :data:`SCHEMAS`.
        values: what was read. What is no object has no number: the checks of its fields answer for it.
        where: file, and line if it has lines, for the message.

    Raises:
        SchemaError: a newer version of drpo wrote them. DataError: the number is none.
    """
    found = values.get(KEY, 0) if isinstance(values, Mapping) else 0
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise DataError(f"{where}: {KEY} must be a whole number from 0, got {found!r:.80}.")
    if found > SCHEMAS[kind]:
        raise SchemaError(
            f"{where} was written by a newer version of drpo: it has {kind} schema {found}, and this version reads up "
            f"to {SCHEMAS[kind]}. Install the newer version."
        )
    return found
