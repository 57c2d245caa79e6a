"""The fields of a record as prompts and answers: text, chat messages, numbers, lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from drpo.errors import DataError
from drpo.tasks.records.files import json_type

#: What data sets call the three roles.
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
#: Digits of a number that is written out.
MAX_DIGITS = 1000

Turn = dict[str, str]


class Prompt(NamedTuple):
    """A prompt's text; and the conversation it is the end of, where that is more than a system's and a user's turn."""

    text: str
    turns: tuple[Turn, ...] = ()


def field(record: Mapping[str, Any], column: str, where: str) -> Any:
    """What a record has in a column, or, by a dotted name, inside of one.

    Raises:
        DataError: it has none of that name.
    """
    value: Any = record
    for name in [column] if column in record else column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            columns = ", ".join(map(repr, record)) or "(none)"
            raise DataError(
                f"{where}: no column {column!r}; its columns are {columns}. Name those of prompt and "
                "answer with task.prompt_column and task.answer_column."
            )
        value = value[name]
    return value


def prompt_of(value: Any) -> Prompt:
    """The prompt in a field: a string; or chat messages, the last one a user's.

    A system's turn before a single user's is put before its text. With more turns, the conversation stays one.

    Raises:
        ValueError: it is neither; the message goes on after the name of the column.
    """
    if isinstance(value, str):
        value = _messages_in(value)
    if isinstance(value, str):
        return Prompt(checked(value))
    messages = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(message, Mapping) for message in messages) or not messages:
        raise ValueError(
            f"must be a string or chat messages ({{role, content}}), got {json_type(value)}"
            + ("" if messages else " without any")
        )
    turns = tuple(_turn(message) for message in messages)
    roles = [turn["role"] for turn in turns]
    if roles[-1] != "user":
        raise ValueError(f"must be chat messages that end with a user's turn, to be answered; got roles {roles}")
    if "system" in roles[1:]:
        raise ValueError(f"has a system's turn that is not the first; got roles {roles}")
    text = "\n\n".join(turn["content"] for turn in turns)
    return Prompt(text) if roles in (["user"], ["system", "user"]) else Prompt(text, turns)


def _messages_in(text: str) -> Any:
    """The chat messages that a text is the JSON of, as a column of a CSV file holds them; else the text."""
    if not text.lstrip().startswith("[{") or not any(f'"{key}"' in text for key in ("role", "from")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _turn(message: Mapping[str, Any]) -> Turn:
    role = message.get("role", message.get("from"))
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"has a chat message of role {role!r}; known: {', '.join(_ROLES)}")
    content = message.get("content") if "content" in message else message.get("value")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if not isinstance(content, str):
        raise ValueError(
            f"has a chat message whose content is {json_type(content)}; a string or a list of text parts is needed"
        )
    return {"role": _ROLES[role], "content": checked(content)}


def _part(part: Any) -> str:
    text = part.get("text") if isinstance(part, Mapping) else part
    kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
    if kind != "text" or not isinstance(text, str):
        raise ValueError(f"has a chat message with a part of type {kind!r}; only text can be given to the model")
    return text


def answers_of(value: Any) -> tuple[str, ...]:
    """The answers in a field, any of which is right: a string, a number, or a list of them.

    Raises:
        ValueError: it is something else; the message goes on after the name of the column.
    """
    if not isinstance(value, list | tuple):
        return (_answer(value),)
    if not value:
        raise ValueError("is an array without any answer")
    return tuple(dict.fromkeys(_answer(item) for item in value))


def _answer(value: Any) -> str:
    if isinstance(value, str):
        return checked(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"must be a string or a number, or an array of them, got {json_type(value)}")
    return number_text(value)


def number_text(value: float | Decimal) -> str:
    """A number as people write it: no exponent, and whole numbers without a fraction (5.0 is "5", 1e-05 "0.00001").

    Raises:
        ValueError: it is not finite, or has too many digits.
    """
    decimal = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not decimal.is_finite():
        raise ValueError(f"is {value}, which no response can equal. Fill it in or remove the record")
    if len(decimal.as_tuple().digits) > MAX_DIGITS or abs(decimal.adjusted()) > MAX_DIGITS:
        raise ValueError(f"is a number that has more than {MAX_DIGITS} digits when written out. Write it as a string")
    return str(int(decimal)) if decimal == decimal.to_integral_value() else format(decimal, "f")


def checked(text: str) -> str:
    """``text``, which is whole characters.

    Raises:
        ValueError: it holds half of a surrogate pair.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"holds half of a surrogate pair ({text[error.start]!r} at character {error.start}), which no "
            "tokenizer reads. Write the whole character, or remove it"
        ) from None
    return text


def with_last(turns: Sequence[Mapping[str, str]], content: str) -> tuple[Turn, ...]:
    """The conversation with another text in its last turn."""
    return (*map(dict, turns[:-1]), {"role": "user", "content": content}) if turns else ()
