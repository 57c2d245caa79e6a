"""The rows of a Parquet log as chunks of tokens, in either layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from drpo.inspection.readers.arrow_columns import (
    ArrowItems,
    as_floats,
    as_integers,
    flattened,
    lengths_of,
    require_no_null,
)
from drpo.inspection.readers.columns import FIELDS, INTEGERS, KEYS, ONE_A_RESPONSE, PER_TOKEN, SHOWN, is_mask
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.refusals import refuse_nan_advantages, refuse_nan_mask, refuse_repeat, refuse_value
from drpo.inspection.readers.tokens import Flags, Floats, Integers, Tokens


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from: the file, its number of rows, and column → its name there."""

    where: str
    rows: int
    names: Mapping[str, str]
    reading: Reading


def tokens_of_sequences(tables: Iterator[Any], origin: Origin) -> Iterator[Tokens]:
    """One row a token: what belongs to a sequence that may go on waits for the next table."""
    import pyarrow

    pending, first = None, 0
    for table in tables:
        joined = table if pending is None else pyarrow.concat_tables([pending, table])
        joined = joined.combine_chunks()
        if not len(joined):
            continue
        numbers = np.arange(first + 1, first + len(joined) + 1)
        starts = _starts(joined, numbers, origin)
        last = first + len(joined) == origin.rows
        cut = len(joined) if last else int(np.flatnonzero(starts)[-1])
        if cut:
            yield _chunk(joined.slice(0, cut), starts[:cut], numbers[:cut], origin)
        pending, first = joined.slice(cut), first + cut


def _starts(table: Any, rows: Integers, origin: Origin) -> Flags:
    """``[N]``: where the sequence, the update or the step is another than in the row before."""
    import pyarrow.compute

    starts = np.zeros(len(table), dtype=bool)
    starts[0] = True
    for key in _keys(table):
        column, name = table[key].combine_chunks(), origin.names[key]
        require_no_null(column, name, rows, origin.where)
        if key in INTEGERS:
            values = as_integers(column, name, rows, origin.where)
            starts[1:] |= values[1:] != values[:-1]
            continue
        _require_whole_ids(column, name, rows, origin.where)
        changes = pyarrow.compute.not_equal(column[1:], column[:-1])  # pyright: ignore[reportAttributeAccessIssue]
        starts[1:] |= changes.to_numpy(zero_copy_only=False)
    return starts


def _require_whole_ids(column: Any, name: str, rows: Integers, where: str) -> None:
    """Raise a DataError if ids in floating point are not whole: NaN equals nothing, not even itself."""
    from pyarrow import types

    if types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        wrong = ~np.isfinite(values) | (values != np.floor(values))
        if wrong.any():
            at = int(wrong.argmax())
            refuse_value(name, values[at].item(), where, int(rows[at]), "row", "a whole number or text")


def _keys(table: Any) -> list[str]:
    return [name for name in KEYS if name in table.column_names]


def _chunk(table: Any, starts: Flags, rows: Integers, origin: Origin) -> Tokens:
    _refuse_scattered(table, starts, rows, origin)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    arrays = {name: as_floats(columns[name]) for name in columns if _is_float(name)}
    integers = {
        name: as_integers(columns[name], origin.names[name], rows, origin.where) for name in INTEGERS if name in columns
    }
    listed = {name: ArrowItems(columns[name]) for name in ("text", "token") if name in columns}
    listed |= {name: ArrowItems(columns[of]) for name, of in _shown(columns).items()}
    sequences = np.cumsum(starts) - 1
    if "reward" in columns:
        heads = np.flatnonzero(starts)
        _require_one_a_response(columns, heads, sequences, rows, origin)
        arrays["advantage"] = _advantages({name: c.take(heads) for name, c in columns.items()}, rows[heads], origin)[
            sequences
        ]
    return _assembled(arrays, listed, sequences, rows, integers, int(rows[-1]), origin)


def _advantages(columns: dict[str, Any], rows: Integers, origin: Origin) -> Floats:
    """``[R]``: the advantages of responses from their rewards and groups, one value of each column a response."""
    for name in ("reward", "group", "step"):
        if name in columns:
            require_no_null(columns[name], origin.names[name], rows, origin.where)
    _require_whole_ids(columns["group"], origin.names["group"], rows, origin.where)
    rewards, groups = as_floats(columns["reward"]), ArrowItems(columns["group"])
    steps = as_integers(columns["step"], origin.names["step"], rows, origin.where) if "step" in columns else None
    found = [
        origin.reading.rewards.advantage(
            f"{origin.where}, row {row}",
            origin.where,
            None if steps is None else int(steps[i]),
            groups[i],
            float(rewards[i]),
        )
        for i, row in enumerate(rows)
    ]
    return np.array(found, dtype=np.float32)


def _require_one_a_response(
    columns: dict[str, Any], heads: Integers, sequences: Integers, rows: Integers, origin: Origin
) -> None:
    """Raise a DataError unless all tokens of a response have one reward and one group."""
    import pyarrow.compute

    for name in ONE_A_RESPONSE:
        column = columns[name]
        require_no_null(column, origin.names[name], rows, origin.where)
        first = column.take(heads[sequences])
        differs = pyarrow.compute.not_equal(column, first)  # pyright: ignore[reportAttributeAccessIssue]
        if (wrong := np.flatnonzero(differs.to_numpy(zero_copy_only=False))).size:
            at = int(wrong[0])
            wanted = f"{first[at].as_py()!r:.80}, as in its response"
            refuse_value(origin.names[name], column[at].as_py(), origin.where, int(rows[at]), "row", wanted)


def _is_float(column: str) -> bool:
    return column in (*PER_TOKEN, "advantage") or is_mask(column)


def _refuse_scattered(table: Any, starts: Flags, rows: Integers, origin: Origin) -> None:
    """Raise a DataError if a sequence starts twice."""
    heads = np.flatnonzero(starts)
    keys = _keys(table)
    names = table.select(keys).take(heads)
    if names.group_by(keys, use_threads=False).aggregate([]).num_rows == len(heads):
        return
    seen: set[tuple[Any, ...]] = set()
    items = [ArrowItems(names[key].combine_chunks()) for key in keys]
    for at, position in enumerate(heads):
        key = tuple(column[at] for column in items)
        if key in seen:
            refuse_repeat(list(zip(keys, key, strict=True)), origin.where, int(rows[position]), "row")
        seen.add(key)


def responses(tables: Iterator[Any], origin: Origin) -> Iterator[Tokens]:
    """One row a response: lists of the same length, side by side."""
    first, where = 0, origin.where
    for table in tables:
        numbers = np.arange(first + 1, first + len(table) + 1)
        first += len(table)
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        for name in columns:
            if name in ("logprob", "advantage", *INTEGERS) or is_mask(name):
                require_no_null(columns[name], origin.names[name], numbers, where)
        lengths = lengths_of(columns["logprob"])
        repeat = np.repeat(np.arange(len(table)), lengths)
        spread = {
            name: _per_token(columns[name], name, lengths, numbers, where)
            for name in columns
            if _is_float(name) or name in INTEGERS
        }
        listed = {
            name: ArrowItems(flattened(columns[name], name, lengths, numbers, where))
            for name in ("text", "token")
            if name in columns
        }
        listed |= {
            name: ArrowItems(columns[of].take(repeat))
            for name, of in _shown(columns).items()
            if not hasattr(columns[of], "value_lengths")
        }
        rows = numbers[repeat]
        arrays = {name: as_floats(column) for name, column in spread.items() if _is_float(name)}
        integers = {
            name: as_integers(column, origin.names[name], rows, where)
            for name, column in spread.items()
            if name in INTEGERS
        }
        if "reward" in columns:
            arrays["advantage"] = _advantages(columns, numbers, origin)[repeat]
        yield _assembled(arrays, listed, repeat, rows, integers, first, origin)


def _shown(columns: Mapping[str, Any]) -> dict[str, str]:
    """The columns that are shown with a response: its reward and its group, read for the advantage or not."""
    return {name: given for name, of in SHOWN.items() for given in (name, of) if given in columns}


def _per_token(column: Any, name: str, lengths: Integers, rows: Integers, where: str) -> Any:
    """``[N]``: a list a response one after the other, or a single value repeated."""
    if hasattr(column, "value_lengths"):
        return flattened(column, name, lengths, rows, where)
    return column.take(np.repeat(np.arange(len(column)), lengths))


def _assembled(
    arrays: dict[str, Floats],
    listed: dict[str, ArrowItems],
    sequences: Integers,
    rows: Integers,
    integers: dict[str, Integers],
    read: int,
    origin: Origin,
) -> Tokens:
    """The chunk, without the tokens that its masks leave out; ``read`` rows of the file are done."""
    keep = np.ones(len(sequences), dtype=bool)
    for name in filter(is_mask, arrays):
        refuse_nan_mask(arrays[name], origin.names[name], rows, origin.where, "row")
        keep &= arrays[name] != 0
    refuse_nan_advantages(arrays["advantage"][keep], rows[keep], origin.where, "row")
    origin.reading.masked += int((~keep).sum())
    return Tokens(
        arrays["logprob"],
        arrays["behavior_logprob"],
        arrays["advantage"],
        sequences,
        rows,
        origin.where,
        read / origin.rows,
        steps=integers.get("step"),
        updates=integers.get("update"),
        optional={field: arrays[name] for name, field in FIELDS.items() if name in arrays},
        support_sizes=arrays.get("support_size"),
        texts=listed.get("text"),
        ids=listed.get("token"),
        rewards=listed.get("shown_reward"),
        groups=listed.get("shown_group"),
    ).select(keep)
