"""Token logs in JSONL, one line a token or one line a response."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from drpo.errors import DataError
from drpo.files import JsonLine, numbered_jsonl
from drpo.inspection.columns import FIELDS, PER_TOKEN, require_sequence_id, resolve
from drpo.inspection.refusals import refuse_lengths, refuse_nan_advantages, refuse_null, refuse_repeat
from drpo.inspection.tokens import CHUNK_TOKENS, Tokens

#: The columns of one sequence, lists of one length; ``line`` has the line of each token.
Columns = dict[str, list[Any]]
#: What JSON has for a number; null is a number that does not exist.
_NUMBERS = {float, int, type(None)}


def read_jsonl_tokens(file: Path) -> Iterator[Tokens]:
    """The tokens of ``file`` in chunks of whole sequences, in either layout.

    Raises:
        DataError: the file is empty, or a line is not JSON, lacks a value, or has one of the wrong type or length;
            the message names the line.
    """
    size = file.stat().st_size
    lines = numbered_jsonl(file)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{file} has no records. Give a log with at least one token.")
    columns = resolve(first.record.keys(), f"{file}, line {first.number}")
    lines = itertools.chain((first,), lines)
    if isinstance(first.record[columns["logprob"]], list):
        sequences = _responses(lines, columns, str(file))
    else:
        require_sequence_id(columns, first.record.keys(), f"{file}, line {first.number}")
        sequences = _token_by_token(lines, columns, str(file))
    pending: list[Columns] = []
    count = end = 0
    for sequence, end in sequences:
        pending.append(sequence)
        count += len(sequence["logprob"])
        if count >= CHUNK_TOKENS:
            yield _chunk(pending, end / size, str(file))
            pending, count = [], 0
    if pending:
        yield _chunk(pending, 1.0, str(file))


def _responses(lines: Iterator[JsonLine], columns: Mapping[str, str], where: str) -> Iterator[tuple[Columns, int]]:
    """Each line's response, and the bytes read until then."""
    for line in lines:
        found = {column: _value(line, name, column, where) for column, name in columns.items()}
        values = found["logprob"]
        if not isinstance(values, list):
            raise DataError(f"{where}, line {line.number}: {columns['logprob']} must be a list, as in the lines "
                            f"before, got {type(values).__name__}.")
        sequence: Columns = {"line": [line.number] * len(values)}
        for column, value in found.items():
            if column in ("advantage", "step", "update") and not isinstance(value, list):
                value = [value] * len(values)
            elif column == "sequence_id":
                continue
            elif not isinstance(value, list) or len(value) != len(values):
                if value is not None and not isinstance(value, list):
                    raise DataError(f"{where}, line {line.number}: {columns[column]} must be a list, as "
                                    f"{columns['logprob']} is, got {type(value).__name__}.")
                count = None if value is None else len(value)
                refuse_lengths(columns[column], count, len(values), where, line.number, "line")
            sequence[column] = value
        yield _checked(sequence, columns, where), line.end


def _token_by_token(
    lines: Iterator[JsonLine], columns: Mapping[str, str], where: str
) -> Iterator[tuple[Columns, int]]:
    """The tokens of one sequence after the other, and the bytes read until then."""
    seen: set[Any] = set()
    sequence: Columns = {}
    key, end = None, 0
    for line in lines:
        found = {column: _value(line, name, column, where) for column, name in columns.items()}
        mine = (found.get("step"), found["sequence_id"])
        if not sequence or mine != key:
            if sequence:
                yield _checked(sequence, columns, where), end
            if any(value is None or isinstance(value, list | dict) for value in (mine[1], mine[0] or 0)):
                refuse_null("sequence_id or step", where, line.number, "line")
            if mine in seen:
                refuse_repeat(mine[1], where, line.number, "line")
            seen.add(mine)
            key, sequence = mine, {"line": [], **{column: [] for column in columns if column != "sequence_id"}}
        sequence["line"].append(line.number)
        for column, values in sequence.items():
            if column != "line":
                values.append(found[column])
        end = line.end
    yield _checked(sequence, columns, where), end


def _value(line: JsonLine, name: str, column: str, where: str) -> Any:
    """What the line has under ``name``; text and token may be left out here and there."""
    if name not in line.record and column not in ("text", "token"):
        raise DataError(f"{where}, line {line.number}: no {name!r}, which the lines before have. Every line needs the "
                        "same columns.")
    return line.record.get(name)


def _checked(sequence: Columns, columns: Mapping[str, str], where: str) -> Columns:
    """``sequence`` itself, found to have numbers where numbers are needed."""
    for column in (*PER_TOKEN, "advantage", "step", "update", "mask"):
        if column not in sequence:
            continue
        allowed = _NUMBERS if column in PER_TOKEN else {float, int, bool} if column == "mask" else {float, int}
        if not allowed.issuperset(map(type, sequence[column])):
            line, value = next(
                (line, value) for line, value in zip(sequence["line"], sequence[column], strict=True)
                if type(value) not in allowed
            )
            raise DataError(f"{where}, line {line}: {columns[column]} must be a number, got {value!r:.80}.")
    return sequence


def _chunk(sequences: list[Columns], done: float, where: str) -> Tokens:
    def joined(column: str, dtype: type) -> Any:
        return np.array([value for sequence in sequences for value in sequence[column]], dtype=dtype)

    present = sequences[0].keys()
    rows = joined("line", np.int64)
    lengths = [len(sequence["logprob"]) for sequence in sequences]
    advantages = joined("advantage", np.float32)
    keep = joined("mask", np.float32) != 0 if "mask" in present else np.ones(len(rows), dtype=bool)
    refuse_nan_advantages(advantages[keep], rows[keep], where, "line")
    listed = {
        name: [value for sequence in sequences for value in sequence[name]]
        for name in ("text", "token") if name in present
    }
    return Tokens(
        joined("logprob", np.float32), joined("behavior_logprob", np.float32), advantages,
        np.repeat(np.arange(len(sequences)), lengths), rows, where, done,
        steps=joined("step", np.int64) if "step" in present else None,
        updates=joined("update", np.int64) if "update" in present else None,
        optional={field: joined(column, np.float32) for column, field in FIELDS.items() if column in present},
        texts=listed.get("text"), ids=listed.get("token"),
    ).select(keep)  # fmt: skip
