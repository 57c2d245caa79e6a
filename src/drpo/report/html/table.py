"""Tables that can be sorted and saved as CSV by the page's script, and read without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drpo.report.html.escape import visible, visible_plain
from drpo.report.html.frame import anchor_name
from drpo.report.html.quantities import percent, plain


class Cell(NamedTuple):
    """A cell: its HTML, and the plain value that it is sorted by and saved as (None: the words that it shows)."""

    html: str
    value: str | None = None


class Column(NamedTuple):
    """A column: its heading, what it means (shown on hover), and whether it holds words and not numbers."""

    heading: str
    hint: str = ""
    words: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a row, the first of which names it; ``own`` sets it off from the others."""

    cells: Sequence[Cell]
    own: bool = False


def number(value: float | None, write: Callable[[float | None], str] = plain) -> Cell:
    """A number as ``write`` shows it, sorted and saved at nine digits."""
    known = value is not None and math.isfinite(value)
    return Cell(write(value if known else None), f"{value:.9g}" if known else "")


def share(value: float | None) -> Cell:
    """A share as a percentage, saved as the number between 0 and 1; 0 is a dash."""
    return number(value, lambda known: percent(known) if known else "–")


def words(value: object, limit: int | None = None) -> Cell:
    """Text from anywhere."""
    return Cell(f"<bdi>{visible(value, limit)}</bdi>")


def table(caption: str, columns: Sequence[Column], rows: Sequence[Row], stacked: bool = False) -> str:
    """The table as HTML, in a frame that scrolls by itself where it is too wide.

    Args:
        caption: what it shows, for readers who do not see the page, and for the name of the file.
        columns: one a cell.
        rows: each with as many cells.
        stacked: on a phone the last column, prose, stands below the others.
    """
    head = "".join(_heading(column) for column in columns)
    body = "".join(_row(row, columns) for row in rows)
    label, layout = visible_plain(caption), "grid stacked" if stacked else "grid"
    return (
        f"<div class='framed'><div class='scroll' role='region' tabindex='0' aria-label='{label}'>"
        f"<table class='{layout}' data-sortable data-file='{anchor_name(caption)}'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div></div>"
    )


def _heading(column: Column) -> str:
    hint = f" title='{visible_plain(column.hint)}'" if column.hint else ""
    return f"<th scope='col'{_words(column)}{hint}>{visible(column.heading)}</th>"


def _row(row: Row, columns: Sequence[Column]) -> str:
    cells = []
    for place, (cell, column) in enumerate(zip(row.cells, columns, strict=True)):
        value = "" if cell.value is None else f" data-v='{visible_plain(cell.value)}'"
        tag, scope = ("th", " scope='row'") if place == 0 else ("td", "")
        cells.append(f"<{tag}{scope}{_words(column)}{value}>{cell.html}</{tag}>")
    return f"<tr{' class=own' if row.own else ''}>{''.join(cells)}</tr>"


def _words(column: Column) -> str:
    return " class='words'" if column.words else ""
