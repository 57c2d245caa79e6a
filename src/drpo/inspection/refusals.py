"""What readers of every format say of records that make no sense."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from drpo.errors import DataError
from drpo.inspection.tokens import Floats, Integers


def refuse_nan_advantages(advantages: Floats, rows: Integers, where: str, unit: str) -> None:
    """Raise a DataError that names the first advantage ``[N]`` that is not finite; ``unit`` is row or line."""
    wrong = np.flatnonzero(~np.isfinite(advantages))
    if wrong.size:
        others = f" ({wrong.size - 1} more are not finite near it)" if wrong.size > 1 else ""
        raise DataError(f"{where}, {unit} {rows[wrong[0]]}: advantage is {advantages[wrong[0]]:g}{others}. Every token "
                        "needs a finite advantage; leave out the responses that have none.")


def refuse_lengths(name: str, found: int | None, wanted: int, where: str, row: int, unit: str) -> NoReturn:
    """Raise the DataError of lists that do not belong together; ``found`` is None for a null."""
    has = "is null" if found is None else f"has {found} values"
    raise DataError(f"{where}, {unit} {row}: {name} {has} where logprob has {wanted}. The lists of a response must be "
                    "of one length, one value a response token (without the prompt).")


def refuse_repeat(name: object, where: str, row: int, unit: str) -> NoReturn:
    """Raise the DataError of a sequence whose tokens are scattered."""
    raise DataError(f"{where}, {unit} {row}: sequence_id {name!r} comes a second time, with others in between. Sort "
                    "the records by sequence, keep each response's tokens in order, and give every response an id of "
                    "its own (within its step, if there is a step column).")


def refuse_null(name: str, where: str, row: int, unit: str) -> NoReturn:
    """Raise the DataError of a column that may not be null."""
    raise DataError(f"{where}, {unit} {row}: {name} is null or missing. Every {unit} needs one.")
