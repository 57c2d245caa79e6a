"""JSON values as the arrays that chunks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo.inspection.readers.refusals import refuse_value
from drpo.inspection.readers.tokens import Floats, Integers

#: Whole numbers are kept in 64 bits.
LARGEST_INTEGER = 2**63 - 1
INTEGER = f"a whole number within ±{LARGEST_INTEGER:.2g}"


def is_whole(value: Any) -> bool:
    """Whether ``value`` is a whole number that 64 bits hold; booleans are none."""
    if type(value) is float:
        return value.is_integer() and abs(value) < LARGEST_INTEGER
    return type(value) is int and abs(value) <= LARGEST_INTEGER


def floats_of(values: Sequence[Any], name: str, lines: Integers, where: str, unit: str = "line") -> Floats:
    """``[N]`` float32 of numbers, null as NaN; what is beyond float32 becomes infinite.

    Raises:
        DataError: an integer is beyond every float.
    """
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float32)
    except OverflowError:
        at = next(i for i, value in enumerate(values) if type(value) is int and not _fits_float(value))
        refuse_value(name, values[at], where, int(lines[at]), unit, "a number of a usual size")


def integers_of(values: Sequence[Any], name: str, lines: Integers, where: str, unit: str = "line") -> Integers:
    """``[N]`` int64 of whole numbers.

    Raises:
        DataError: a value is not whole, or too large.
    """
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    for value, line in zip(values, lines, strict=True):
        if not is_whole(value):
            refuse_value(name, value, where, int(line), unit, INTEGER)
    return np.array([int(value) for value in values], dtype=np.int64)


def _fits_float(value: int) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True
