"""Arrow columns as the arrays that chunks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo.inspection.refusals import refuse_lengths, refuse_null
from drpo.inspection.tokens import Floats, Integers


class ArrowItems(Sequence[Any]):
    """An Arrow column as a sequence of Python values, converted one by one when asked for."""

    def __init__(self, column: Any):
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: Any) -> Any:
        return self.column[int(index)].as_py()


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of values."""
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind)


def as_floats(column: Any) -> Floats:
    """``[N]`` float32, null as NaN."""
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype == object:  # booleans with nulls
        values = np.array([np.nan if value is None else float(value) for value in values])
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32)  # a copy: what Arrow lends is read-only, and torch wants to own it


def as_integers(column: Any) -> Integers:
    """``[N]`` int64; the column has no nulls."""
    return np.ascontiguousarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)


def require_no_null(column: Any, name: str, rows: Integers, where: str) -> None:
    """Raise a DataError that names the first row of ``rows`` ``[N]`` where the column is null."""
    if column.null_count:
        missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        refuse_null(name, where, int(rows[missing[0]]), "row")


def lengths_of(column: Any) -> Integers:
    """``[R]`` how many values each list has; −1 for null."""
    return as_integers(column.value_lengths().fill_null(-1))


def flattened(column: Any, name: str, lengths: Integers, rows: Integers, where: str) -> Any:
    """The values of a list column one after the other.

    Raises:
        DataError: a list is not of the length that ``lengths`` ``[R]`` gives.
    """
    found = lengths_of(column)
    if (different := np.flatnonzero(found != lengths)).size:
        at = different[0]
        count = None if found[at] < 0 else int(found[at])
        refuse_lengths(name, count, int(lengths[at]), where, int(rows[at]), "row")
    return column.flatten()
