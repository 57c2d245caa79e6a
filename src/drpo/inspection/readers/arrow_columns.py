"""Arrow columns as the arrays that chunks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo.inspection.readers.json_columns import INTEGER, LARGEST_INTEGER
from drpo.inspection.readers.refusals import refuse_lengths, refuse_null, refuse_value
from drpo.inspection.readers.tokens import Floats, Integers


class ArrowItems(Sequence[Any]):
    """An Arrow column as a sequence of Python values, converted one by one when asked for."""

    def __init__(self, column: Any):
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: Any) -> Any:
        value = self.column[int(index)]
        try:
            return value.as_py()
        except UnicodeDecodeError:  # Parquet does not check that text is UTF-8
            return value.as_buffer().to_pybytes().decode("utf-8", "replace")
        except (ValueError, OverflowError):  # a date beyond Python's calendar
            return None


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of values."""
    from pyarrow import types

    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def is_number(kind: Any) -> bool:
    """Whether an Arrow type is a whole number or one in floating point, or of nulls alone."""
    from pyarrow import types

    return types.is_floating(kind) or types.is_integer(kind) or types.is_null(kind)


def is_id(kind: Any) -> bool:
    """Whether values of an Arrow type can tell responses apart."""
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    return (
        is_number(plain)
        or types.is_string(plain)
        or types.is_large_string(plain)
        or types.is_string_view(plain)
        or types.is_binary(plain)
        or types.is_large_binary(plain)
        or types.is_fixed_size_binary(plain)
    )


def simplified(column: Any) -> Any:
    """One array of the column, of a type that Arrow compares and groups: plain lists, no dictionaries, no views."""
    import pyarrow
    from pyarrow import types

    column = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
    kind = column.type
    if types.is_dictionary(kind):
        return simplified(column.dictionary_decode())
    if types.is_string_view(kind):
        return column.cast(pyarrow.large_string())
    if types.is_float16(kind):
        return column.cast(pyarrow.float32())
    if is_list(kind) and not types.is_list(kind) and not types.is_large_list(kind):
        return column.cast(pyarrow.large_list(kind.value_type))
    return column


def as_floats(column: Any) -> Floats:
    """``[N]`` float32, null as NaN."""
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype == object:  # booleans with nulls
        values = np.array([np.nan if value is None else float(value) for value in values])
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32)  # a copy: what Arrow lends is read-only, and torch wants to own it


def as_integers(column: Any, name: str, rows: Integers, where: str) -> Integers:
    """``[N]`` int64 of a column of numbers.

    Raises:
        DataError: a value is null, not whole, or beyond 64 bits; ``rows`` ``[N]`` says where it stands.
    """
    require_no_null(column, name, rows, where)
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        wrong = ~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values) >= 2.0**63)
    elif values.dtype == np.uint64:
        wrong = values > np.uint64(LARGEST_INTEGER)
    else:
        wrong = np.zeros(len(values), dtype=bool)
    if wrong.any():
        at = int(wrong.argmax())
        refuse_value(name, values[at].item(), where, int(rows[at]), "row", INTEGER)
    return np.ascontiguousarray(values, dtype=np.int64)


def require_no_null(column: Any, name: str, rows: Integers, where: str) -> None:
    """Raise a DataError that names the first row of ``rows`` ``[N]`` where the column is null."""
    if column.null_count:
        missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        refuse_null(name, where, int(rows[missing[0]]), "row")


def lengths_of(column: Any) -> Integers:
    """``[R]`` how many values each list has; −1 for null."""
    return np.ascontiguousarray(column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)


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
