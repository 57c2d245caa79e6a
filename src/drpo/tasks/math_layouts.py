"""The layouts that mathematical problems come in, and how a record of each gives its problem and its answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from drpo.errors import ConfigError, DataError, suggest
from drpo.tasks.records import json_type

# DAPO-Math asks for a line "Answer: …" around every problem, which contradicts the box that we grade.
_DAPO_BEFORE = re.compile(r"\ASolve the following math problem[^\n]*Answer:[^\n]*\n\s*")
_DAPO_AFTER = re.compile(r"\n\s*Remember to put your answer[^\n]*Answer:[^\n]*\Z")


class Problem(NamedTuple):
    """A problem without any instruction, and its answer."""

    text: str
    answer: str


class Layout(NamedTuple):
    """What a layout looks like, and how to read it. ``columns``: (of the problem, of the answer)."""

    columns: tuple[str, str]
    description: str
    problem: Callable[[Any], str]
    answer: Callable[[Any], str]

    def read(self, record: Mapping[str, Any], where: str) -> Problem:
        """The problem of a record.

        Raises:
            DataError: it lacks one of the columns, or holds something else in it.
        """
        found = []
        for column, convert in zip(self.columns, (self.problem, self.answer), strict=True):
            if column not in record:
                raise DataError(f"{where}: no column {column!r}; its columns are "
                                f"{', '.join(map(repr, record)) or '(none)'}.")
            try:
                text = convert(record[column]).strip()
            except ValueError as error:
                raise DataError(f"{where}: {column!r} {error}.") from None
            if not text:
                raise DataError(f"{where}: {column!r} is empty. Fill it in or remove the record.")
            found.append(text)
        return Problem(*found)


def find_layout(name: str | None, columns: Iterable[str], where: str) -> Layout:
    """The layout of that name, or the first that the columns of the first record fit.

    Raises:
        ConfigError: there is no layout of that name.
        DataError: no layout fits.
    """
    if name is not None:
        if name not in LAYOUTS:
            raise ConfigError(f"math: unknown layout {name!r}.{suggest(name, LAYOUTS)}")
        return LAYOUTS[name]
    present = list(columns)
    for layout in LAYOUTS.values():
        if set(layout.columns) <= set(present):
            return layout
    known = "; ".join(f"{key}: {layout.description}" for key, layout in LAYOUTS.items())
    raise DataError(f"{where}: the columns {', '.join(map(repr, present)) or '(none)'} fit no layout. Known: {known}. "
                    "Rename the columns to those of one of them.")


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, got {json_type(value)}")
    return value


def _string_or_number(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a string or a number, got {json_type(value)}")
    return repr(value) if isinstance(value, float) else str(value)


def _after_mark(value: Any) -> str:
    _, mark, answer = _string(value).rpartition("####")
    if not mark:
        raise ValueError("must end with '#### ' and the answer, as GSM8K's do")
    return answer.strip().replace(",", "")


def _messages(value: Any) -> str:
    """The user's turn, behind a system turn if there is one; without what DAPO-Math wraps around a problem."""
    if isinstance(value, str):
        text = value
    else:
        turns = value if isinstance(value, list) else [value]
        roles = [turn.get("role") if isinstance(turn, Mapping) else None for turn in turns]
        if roles not in (["user"], ["system", "user"]):
            raise ValueError(f"must be chat messages: a user's turn, before it at most a system's; got roles {roles}")
        text = "\n\n".join(_string(turn.get("content")) for turn in turns)
    return _DAPO_AFTER.sub("", _DAPO_BEFORE.sub("", text.strip()))


def _ground_truth(value: Any) -> str:
    if not isinstance(value, Mapping) or "ground_truth" not in value:
        raise ValueError(f"must be an object with a 'ground_truth', got {json_type(value)}")
    return _string_or_number(value["ground_truth"])


#: By name, in the order in which they are tried; a record has further columns of any name.
LAYOUTS: dict[str, Layout] = {
    "dapo": Layout(("prompt", "reward_model"),
                   "prompt (chat messages) and reward_model.ground_truth, as DAPO-Math-17k and verl's other files",
                   _messages, _ground_truth),
    "gsm8k": Layout(("question", "answer"), "question and answer, which ends with '#### 42'", _string, _after_mark),
    "aime": Layout(("problem", "answer"), "problem and answer, as AIME and MATH-500", _string, _string_or_number),
    "aime_2024": Layout(("Problem", "Answer"), "Problem and Answer", _string, _string_or_number),
    "plain": Layout(("prompt", "answer"), "prompt and answer", _string, _string_or_number),
}  # fmt: skip
