"""The lab's CSV files: a ``schema`` number in the first column, empty cells for values that do not exist."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drpo.errors import DataError
from drpo.schema import KEY, numbered, unnumbered


def csv_text(kind: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table of a kind that :mod:`drpo.schema` knows; keys of ``rows`` that are no column are left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (KEY, *columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(numbered(kind, row) for row in rows)
    return text.getvalue()


def read_table(kind: str, file: Path, text: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of :func:`csv_text`, without their number; a float comes back to its last bit.

    Args:
        kind: what the file is.
        file: where it is.
        text: columns that hold no figures; in any other an empty cell is None.

    Raises:
        DataError: a cell is no figure, or a line has not as many as the head. SchemaError: a newer version wrote it.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        for number, cells in enumerate(csv.DictReader(stream), start=2):
            where = f"{file}, row {number}"
            if None in cells or None in cells.values():
                raise DataError(f"{where}: its number of cells differs from that of the first line.")
            row = {name: cell if name in text else _value(cell, f"{where}, {name}") for name, cell in cells.items()}
            yield unnumbered(kind, row, where)


def _value(cell: str, where: str) -> Any:
    try:
        return json.loads(cell.lower()) if cell else None
    except ValueError as error:
        raise DataError(f"{where}: a number, True or False is needed, got {cell!r:.80}.") from error
