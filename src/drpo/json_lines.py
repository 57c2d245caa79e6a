"""JSON text as values: the only place where JSON that others wrote is parsed."""

from __future__ import annotations

import json
from typing import Any

from drpo.errors import DataError

#: Python converts no integer with more digits than this (``sys.set_int_max_str_digits``).
MOST_DIGITS = 4300


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """The object that one line of a JSONL file holds.

    Args:
        line: UTF-8 text, with or without its newline.
        where: file and line, for messages.

    Raises:
        DataError: the line is no JSON (:func:`parse_json`), or no object.
    """
    record = parse_json(line.rstrip(), where, " Each line must be one JSON object.")
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object is needed, got {type(record).__name__}")
    return record


def parse_json(content: bytes, where: str, rule: str = "") -> Any:
    """The JSON value of ``content``.

    Args:
        content: UTF-8 text; a byte order mark is passed over.
        where: where it stands, for messages.
        rule: a sentence that ends a message.

    Raises:
        DataError: ``content`` is not UTF-8, not JSON, nested too deeply, names a key of an outermost object twice, or
            has an integer with more than 4,300 digits.
    """
    try:
        value = json.loads(content.removeprefix(b"\xef\xbb\xbf").decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text (byte {error.start + 1} of the line).{rule}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno}).{rule}") from error
    except RecursionError as error:
        raise DataError(f"{where}: brackets are nested too deeply to be read.{rule}") from error
    except ValueError as error:
        raise DataError(
            f"{where}: {_long_integer(content)} has an integer of more than {MOST_DIGITS:,} digits. Write "
            f"numbers of a usual size.{rule}"
        ) from error
    for outer in value if type(value) is list else [value]:
        if type(outer) is _Repeated:
            raise DataError(f"{where}: the key {outer.key!r:.80} comes twice. Write every key once.")
    return value


class _Repeated(dict[str, Any]):
    """An object that names ``key`` more than once."""

    key = ""


class _Long(str):
    """An integer that Python refuses to convert."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    repeated = _Repeated(found)
    repeated.key = next(name for name, _ in pairs if name in seen or seen.add(name))
    return repeated


def _long_integer(content: bytes) -> str:
    """The key under which a too long integer stands, in words."""
    try:
        record = json.loads(content, parse_int=lambda digits: _Long() if len(digits) > MOST_DIGITS else 0)
        keys = [name for name, value in record.items() if _holds_long(value)] if isinstance(record, dict) else []
    except (RecursionError, ValueError):  # wrong in more than one way
        keys = []
    return f"the column {keys[0]!r:.80}" if keys else "the line"


def _holds_long(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, _Long) or any(map(_holds_long, inner))
