"""Token logs as a stream of records (dicts of JSON values), each a token or a response."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from drpo.errors import DataError
from drpo.inspection.readers.columns import (
    FIELDS,
    INTEGERS,
    KEYS,
    ONE_A_RESPONSE,
    PER_TOKEN,
    SHOWN,
    is_mask,
    require_sequence_id,
    resolve,
)
from drpo.inspection.readers.json_columns import INTEGER, floats_of, integers_of, is_whole
from drpo.inspection.readers.json_records import Record
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.refusals import (
    refuse_lengths,
    refuse_nan_advantages,
    refuse_nan_mask,
    refuse_null,
    refuse_repeat,
    refuse_value,
)
from drpo.inspection.readers.tables import batch_size, responses_of
from drpo.inspection.readers.tokens import CHUNK_TOKENS, Tokens

#: The columns of one sequence, lists of one length; ``line`` has the position of each token's record.
Columns = dict[str, list[Any]]
#: What JSON has for a number; null is a number that does not exist.
_NUMBERS = {float, int, type(None)}
#: Columns that a line may have or not have.
_OCCASIONAL = {"text", "token", "entropy", "proximal_logprob", *SHOWN}


def tokens_of_records(
    records: Iterator[Record | None], where: str, unit: str, reading: Reading
) -> Iterator[Tokens | None]:
    """The tokens of ``records`` in chunks of whole sequences, in either layout.

    Args:
        records: of one file; where one is None there is no more for now, which is handed on after all whole sequences.
        where: the file, for messages.
        unit: what a record is called there: line, record or sample.
        reading: the names that the user gave; what was found is noted in it.

    Raises:
        DataError: there are no records, or one lacks a value, or has one of the wrong type or length; the message names
            the record.
    """
    first = yield from _first(records)
    if first is None:
        if reading.follows:  # nothing but a line that nobody finished
            return
        raise DataError(f"{where} has no records. Give a log with at least one token.")
    if batch_size(first.values):
        records = responses_of(itertools.chain((first,), records))
        first = next(records)
        assert first is not None  # it is a response of the first record
    lines = _Lines(first, records, where, unit, reading)
    sequences = _responses(lines) if lines.has_lists else _token_by_token(lines)
    pending: list[Columns] = []
    count, done = 0, 0.0
    for found in sequences:
        if found is not None:
            sequence, done = found
            pending.append(sequence)
            count += len(sequence["logprob"])
        if pending and (found is None or count >= CHUNK_TOKENS):
            yield _chunk(pending, done, lines, reading)
            pending, count = [], 0
        if found is None:
            yield None
    if pending:
        yield _chunk(pending, 1.0, lines, reading)


def _first(records: Iterator[Record | None]) -> Generator[None, None, Record | None]:
    """Return the first record, None if there is none at all; until it comes, None is handed on."""
    for record in records:
        if record is not None:
            return record
        yield None
    return None


class _Lines:
    """The records of one file, found to have the same columns.

    Attributes:
        columns: column → its name in the file.
        has_lists: a record is a response, not a token.
    """

    def __init__(self, first: Record, others: Iterator[Record | None], where: str, unit: str, reading: Reading):
        self.where, self.unit, self.reading = where, unit, reading
        self.columns = self._resolve(first)
        self.has_lists = isinstance(first.values[self.columns["logprob"]], list)
        if not self.has_lists:
            require_sequence_id(self.columns, first.values.keys(), self.at(first.line))
        reading.uses(self.columns, first.values.keys(), where)
        self.records = itertools.chain((first,), others)

    def __iter__(self) -> Iterator[tuple[Record, dict[str, Any]] | None]:
        """Each record, and column → its value; None is handed on."""
        known: set[frozenset[str]] = set()
        keys = frozenset[str]()
        columns = list(self.columns.items())
        for record in self.records:
            if record is None:
                yield None
                continue
            values = record.values
            if values.keys() != keys:
                keys = frozenset(values)
                if keys not in known:
                    self._require_same(record)
                    known.add(keys)
            yield record, {column: values.get(name) for column, name in columns}

    def at(self, line: int) -> str:
        """The record at position ``line``, for messages."""
        return f"{self.where}, {self.unit} {line}"

    def _resolve(self, record: Record) -> dict[str, str]:
        return resolve(record.values.keys(), self.at(record.line), self.reading.columns)

    def _require_same(self, record: Record) -> None:
        here = self.at(record.line)
        for column, name in self.columns.items():
            if name not in record.values and column not in ("text", "token", *SHOWN):
                raise DataError(
                    f"{here}: no {name!r:.80}, which the {self.unit}s before have. Every {self.unit} needs the same "
                    "columns."
                )
        for column, name in self._resolve(record).items():
            if column not in _OCCASIONAL and self.columns.get(column) != name:
                raise DataError(
                    f"{here}: the column {name!r:.80} is not in the {self.unit}s before. Every {self.unit} needs the "
                    "same columns."
                )


def _responses(lines: _Lines) -> Iterator[tuple[Columns, float] | None]:
    """Each line's response, and the share of the file read until then; None is handed on."""
    for item in lines:
        if item is None:
            yield None
            continue
        record, found = item
        values = found["logprob"]
        if not isinstance(values, list):
            raise DataError(
                f"{lines.at(record.line)}: {lines.columns['logprob']} must be a list, as in the {lines.unit}s "
                f"before, got {type(values).__name__}."
            )
        sequence: Columns = {"line": [record.line] * len(values)}
        for column, value in found.items():
            if column not in ("sequence_id", *ONE_A_RESPONSE):
                sequence[column] = _listed(column, value, len(values), lines, record.line)
        if "reward" in lines.columns:
            sequence["advantage"] = [_advantage(found, record.line, lines)] * len(values)
            sequence |= {column: [found[of]] * len(values) for column, of in SHOWN.items()}
        yield _checked(sequence, lines), record.done


def _advantage(found: dict[str, Any], line: int, lines: _Lines) -> float:
    """The advantage of a response, from its reward and its group."""
    for column, wanted in ONE_A_RESPONSE.items():
        value = found[column]
        usable = type(value) in (float, int, bool) if column == "reward" else type(value) is str or is_whole(value)
        if not usable:
            refuse_value(lines.columns[column], value, lines.where, line, lines.unit, wanted)
    if "step" in found and not is_whole(found["step"]):
        refuse_value(lines.columns["step"], found["step"], lines.where, line, lines.unit, INTEGER)
    reward = floats_of([found["reward"]], lines.columns["reward"], np.array([line]), lines.where, lines.unit)[0]
    return lines.reading.rewards.advantage(lines.at(line), lines.where, found.get("step"), found["group"], reward)


def _listed(column: str, value: Any, length: int, lines: _Lines, line: int) -> list[Any]:
    """The ``length`` values of a column of one response, which may be one value for all of them."""
    if column in SHOWN:
        return value if isinstance(value, list) and len(value) == length else [value] * length
    if isinstance(value, list):
        if len(value) != length:
            refuse_lengths(lines.columns[column], len(value), length, lines.where, line, lines.unit)
        return value
    if column in (*INTEGERS, "advantage") or is_mask(column):
        return [value] * length
    name = lines.columns[column]
    if value is not None:
        raise DataError(
            f"{lines.at(line)}: {name} must be a list, as {lines.columns['logprob']} is, got {type(value).__name__}."
        )
    if column in ("text", "token"):
        return [None] * length
    refuse_lengths(name, None, length, lines.where, line, lines.unit)


def _token_by_token(lines: _Lines) -> Iterator[tuple[Columns, float] | None]:
    """The tokens of one sequence after the other, and the share of the file read until then; None is handed on."""
    keys = [column for column in KEYS if column in lines.columns]
    names = [column for column in lines.columns if column not in ("sequence_id", *ONE_A_RESPONSE)]
    seen: set[Any] = set()
    sequence: Columns = {}
    response: dict[str, Any] = {}
    key, done, advantage = None, 0.0, 0.0
    for item in lines:
        if item is None:
            yield None
            continue
        record, found = item
        mine = tuple(found[column] for column in keys)
        # 1 == True: the same value of another type is not the same id.
        if not sequence or mine != key or bool in map(type, mine):
            if sequence:
                yield _checked(sequence, lines), done
            _require_key(found, keys, lines, record.line)
            if mine in seen:
                refuse_repeat(list(zip(keys, mine, strict=True)), lines.where, record.line, lines.unit)
            seen.add(mine)
            key, sequence = mine, {"line": [], **{column: [] for column in names}}
            response = {column: found[column] for column in ONE_A_RESPONSE if column in found}
            if response:
                sequence |= {"advantage": [], **{column: [] for column in SHOWN}}
                advantage = _advantage(found, record.line, lines)
        sequence["line"].append(record.line)
        for column in names:
            sequence[column].append(found[column])
        if response:
            _require_one_response(response, found, record.line, lines)
            sequence["advantage"].append(advantage)
            for column, of in SHOWN.items():
                sequence[column].append(response[of])
        done = record.done
    yield _checked(sequence, lines), done


def _require_one_response(response: dict[str, Any], found: dict[str, Any], line: int, lines: _Lines) -> None:
    """Raise a DataError unless a token has the reward and the group of its response's first token."""
    for column, value in response.items():
        if found[column] != value:
            refuse_value(
                lines.columns[column],
                found[column],
                lines.where,
                line,
                lines.unit,
                f"{value!r:.80}, as in its response",
            )


def _require_key(found: dict[str, Any], keys: list[str], lines: _Lines, line: int) -> None:
    """Raise a DataError unless the values that tell responses apart can be compared."""
    for column in keys:
        value, name = found[column], lines.columns[column]
        if value is None:
            refuse_null(name, lines.where, line, lines.unit)
        if column == "sequence_id" and type(value) not in (int, str) and not is_whole(value):
            refuse_value(name, value, lines.where, line, lines.unit, "a whole number or text")
        if column != "sequence_id" and not is_whole(value):
            integers_of([value], name, np.array([line]), lines.where, lines.unit)


def _checked(sequence: Columns, lines: _Lines) -> Columns:
    """``sequence`` itself, found to have numbers where numbers are needed."""
    masked = any(map(is_mask, sequence))
    for column, values in sequence.items():
        if column in PER_TOKEN or (column == "advantage" and masked):
            allowed = _NUMBERS
        elif is_mask(column):
            allowed = {float, int, bool}
        elif column in (*INTEGERS, "advantage"):
            allowed = {float, int}
        else:
            continue
        if not allowed.issuperset(map(type, values)):
            line, value = next((a, b) for a, b in zip(sequence["line"], values, strict=True) if type(b) not in allowed)
            wanted = "0 or 1" if is_mask(column) else "a number"
            refuse_value(lines.columns[column], value, lines.where, line, lines.unit, wanted)
    return sequence


def _chunk(sequences: list[Columns], done: float, lines: _Lines, reading: Reading) -> Tokens:
    def joined(column: str) -> list[Any]:
        return [value for sequence in sequences for value in sequence[column]]

    def floats(column: str) -> np.ndarray:
        return floats_of(joined(column), lines.columns.get(column, column), rows, lines.where, lines.unit)

    def integers(column: str) -> np.ndarray | None:
        return (
            integers_of(joined(column), lines.columns[column], rows, lines.where, lines.unit)
            if column in present
            else None
        )

    present = sequences[0].keys()
    rows = np.array(joined("line"), dtype=np.int64)
    lengths = [len(sequence["logprob"]) for sequence in sequences]
    keep = np.ones(len(rows), dtype=bool)
    for column in filter(is_mask, present):
        mask = floats(column)
        refuse_nan_mask(mask, lines.columns[column], rows, lines.where, lines.unit)
        keep &= mask != 0
    advantages = floats("advantage")
    refuse_nan_advantages(advantages[keep], rows[keep], lines.where, lines.unit)
    reading.masked += int((~keep).sum())
    return Tokens(
        floats("logprob"),
        floats("behavior_logprob"),
        advantages,
        np.repeat(np.arange(len(sequences)), lengths),
        rows,
        lines.where,
        done,
        steps=integers("step"),
        updates=integers("update"),
        optional={field: floats(column) for column, field in FIELDS.items() if column in present},
        support_sizes=floats("support_size") if "support_size" in present else None,
        texts=joined("text") if "text" in present else None,
        ids=joined("token") if "token" in present else None,
        rewards=joined("shown_reward") if "shown_reward" in present else None,
        groups=joined("shown_group") if "shown_group" in present else None,
    ).select(keep)
