"""What readers of every format say of records that make no sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from drpo.errors import DataError
from drpo.inspection.readers.tokens import Floats, Integers


def refuse_nan_advantages(advantages: Floats, rows: Integers, where: str, unit: str) -> None:
    """Raise a DataError that names the first advantage ``[N]`` that is not finite; ``unit`` is row or line."""
    wrong = np.flatnonzero(~np.isfinite(advantages))
    if wrong.size:
        others = f" ({wrong.size - 1} more are not finite near it)" if wrong.size > 1 else ""
        value = advantages[wrong[0]]
        what = "nan or null" if np.isnan(value) else f"{value:g} in single precision"
        raise DataError(
            f"{where}, {unit} {rows[wrong[0]]}: advantage is {what}{others}. Every token needs a finite "
            "advantage; leave out the responses that have none."
        )


def refuse_nan_mask(mask: Floats, name: str, rows: Integers, where: str, unit: str) -> None:
    """Raise a DataError that names the first value of ``mask`` ``[N]`` that is NaN or null."""
    wrong = np.flatnonzero(np.isnan(mask))
    if wrong.size:
        refuse_value(name, None, where, int(rows[wrong[0]]), unit, "0 or 1")


def refuse_lengths(name: str, found: int | None, wanted: int, where: str, row: int, unit: str) -> NoReturn:
    """Raise the DataError of lists that do not belong together; ``found`` is None for a null."""
    has = "is null" if found is None else f"has {found} values"
    raise DataError(
        f"{where}, {unit} {row}: {name} {has} where logprob has {wanted}. The lists of a response must be "
        "of one length, one value a response token (without the prompt). An optional column is left out "
        "with --map COLUMN=none."
    )


def refuse_repeat(key: Sequence[tuple[str, Any]], where: str, row: int, unit: str) -> NoReturn:
    """Raise the DataError of a response whose tokens are scattered; ``key`` are (column, value) pairs."""
    named = ", ".join(f"{column} {value!r:.80}" for column, value in key)
    raise DataError(
        f"{where}, {unit} {row}: {named} comes a second time, with others in between. Sort the records by "
        f"{', '.join(column for column, _ in key)}, keep each response's tokens in order, and give every "
        "response an id of its own (within its step and update, if those are logged)."
    )


def refuse_null(name: str, where: str, row: int, unit: str) -> NoReturn:
    """Raise the DataError of a column that may not be null."""
    raise DataError(f"{where}, {unit} {row}: {name} is null or missing. Every {unit} needs one.")


def refuse_value(name: str, value: Any, where: str, row: int, unit: str, wanted: str) -> NoReturn:
    """Raise the DataError of one value: ``wanted`` says what it must be."""
    got = "NaN or null" if value is None else f"{value!r:.80}"
    raise DataError(f"{where}, {unit} {row}: {name} must be {wanted}, got {got}.")
