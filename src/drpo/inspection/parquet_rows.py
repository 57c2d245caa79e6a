"""The rows of a Parquet log as chunks of tokens, in either layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from drpo.inspection.arrow_columns import ArrowItems, as_floats, as_integers, flattened, lengths_of, require_no_null
from drpo.inspection.columns import FIELDS, PER_TOKEN
from drpo.inspection.refusals import refuse_nan_advantages, refuse_repeat
from drpo.inspection.tokens import Flags, Floats, Integers, Tokens


def tokens_of_sequences(tables: Iterator[Any], rows: int, where: str) -> Iterator[Tokens]:
    """One row a token: what belongs to a sequence that may go on waits for the next table."""
    import pyarrow

    pending, first = None, 0
    for table in tables:
        joined = table if pending is None else pyarrow.concat_tables([pending, table])
        joined = joined.combine_chunks()
        numbers = np.arange(first + 1, first + len(joined) + 1)
        starts = _starts(joined, numbers, where)
        last = first + len(joined) == rows
        cut = len(joined) if last else int(np.flatnonzero(starts)[-1])
        if cut:
            yield _chunk(joined.slice(0, cut), starts[:cut], numbers[:cut], (first + cut) / rows, where)
        pending, first = joined.slice(cut), first + cut


def _starts(table: Any, rows: Integers, where: str) -> Flags:
    """``[N]``: where the sequence, or the step, is another than in the row before."""
    import pyarrow.compute

    starts = np.zeros(len(table), dtype=bool)
    starts[0] = True
    for name in _keys(table):
        column = table[name].combine_chunks()
        require_no_null(column, name, rows, where)
        changes = pyarrow.compute.not_equal(column[1:], column[:-1])  # pyright: ignore[reportAttributeAccessIssue]
        starts[1:] |= changes.to_numpy(zero_copy_only=False)
    return starts


def _keys(table: Any) -> list[str]:
    return [name for name in ("step", "sequence_id") if name in table.column_names]


def _chunk(table: Any, starts: Flags, rows: Integers, done: float, where: str) -> Tokens:
    _refuse_scattered(table, starts, rows, where)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    arrays = {name: as_floats(columns[name]) for name in (*PER_TOKEN, "advantage", "mask") if name in columns}
    if "update" in columns:
        require_no_null(columns["update"], "update", rows, where)
    integers = {name: as_integers(columns[name]) for name in ("step", "update") if name in columns}
    listed = {name: ArrowItems(columns[name]) for name in ("text", "token") if name in columns}
    return _assembled(arrays, listed, np.cumsum(starts) - 1, rows, integers, done, where)


def _refuse_scattered(table: Any, starts: Flags, rows: Integers, where: str) -> None:
    """Raise a DataError if a sequence starts twice."""
    heads = np.flatnonzero(starts)
    keys = _keys(table)
    names = table.select(keys).take(heads)
    if names.group_by(keys, use_threads=False).aggregate([]).num_rows == len(heads):
        return
    seen: set[tuple[Any, ...]] = set()
    for position, key in zip(heads, zip(*(names[k].to_pylist() for k in keys), strict=True), strict=True):
        if key in seen:
            refuse_repeat(key[-1], where, int(rows[position]), "row")
        seen.add(key)


def responses(tables: Iterator[Any], rows: int, where: str) -> Iterator[Tokens]:
    """One row a response: lists of the same length, side by side."""
    first = 0
    for table in tables:
        numbers = np.arange(first + 1, first + len(table) + 1)
        first += len(table)
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        for name in {"logprob", "advantage", "step", "update"} & columns.keys():
            require_no_null(columns[name], name, numbers, where)
        lengths = lengths_of(columns["logprob"])
        repeat = np.repeat(np.arange(len(table)), lengths)
        arrays = {
            name: _per_token(columns[name], name, lengths, numbers, where)
            for name in (*PER_TOKEN, "advantage", "mask") if name in columns
        }
        listed = {
            name: ArrowItems(flattened(columns[name], name, lengths, numbers, where))
            for name in ("text", "token") if name in columns
        }
        integers = {name: as_integers(columns[name])[repeat] for name in ("step", "update") if name in columns}
        yield _assembled(arrays, listed, repeat, numbers[repeat], integers, first / rows, where)


def _per_token(column: Any, name: str, lengths: Integers, rows: Integers, where: str) -> Floats:
    """``[N]``: a list a response one after the other, or a single value repeated."""
    if hasattr(column, "value_lengths"):
        return as_floats(flattened(column, name, lengths, rows, where))
    return np.repeat(as_floats(column), lengths)


def _assembled(
    arrays: dict[str, Floats], listed: dict[str, ArrowItems], sequences: Integers, rows: Integers,
    integers: dict[str, Integers], done: float, where: str,
) -> Tokens:  # fmt: skip
    """The chunk, without the tokens that its mask leaves out."""
    keep = arrays["mask"] != 0 if "mask" in arrays else np.ones(len(sequences), dtype=bool)
    refuse_nan_advantages(arrays["advantage"][keep], rows[keep], where, "row")
    return Tokens(
        arrays["logprob"], arrays["behavior_logprob"], arrays["advantage"], sequences, rows, where, done,
        steps=integers.get("step"), updates=integers.get("update"),
        optional={field: arrays[name] for name, field in FIELDS.items() if name in arrays},
        texts=listed.get("text"), ids=listed.get("token"),
    ).select(keep)  # fmt: skip
