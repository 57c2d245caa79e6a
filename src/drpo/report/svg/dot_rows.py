"""Rows of dots and intervals along one axis, as inline SVG: a forest plot, or every seed of every arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from drpo.report.html.escape import visible_plain
from drpo.report.html.quantities import plain
from drpo.report.svg.charts import figure, svg
from drpo.report.svg.scales import Scale

#: Where names end, where the axis lies, and where the texts at the right begin, in the drawing's units.
NAMES, LEFT, RIGHT, TEXTS = 106, 116, 272, 284
#: Height of a row, of the heading, and of the axis.
ROW, HEAD, FOOT = 17, 20, 24
#: Longest name that fits.
LONGEST = 17
#: Most ticks whose labels do not touch.
TICKS = 5

Shape = Literal["dot", "square", "diamond", "ring"]


@dataclass(frozen=True)
class DotRow:
    """A name, its measurements, and what is said of them at the right."""

    name: str
    text: str = ""
    #: Single measurements: small dots; crosses are those to be told from the others.
    dots: Sequence[float] = ()
    crosses: Sequence[float] = ()
    #: What sums them up, and its interval; drawn as ``shape``, which a print without colors keeps apart.
    value: float | None = None
    interval: tuple[float, float] | None = None
    shape: Shape = "dot"
    color: int = 1
    #: The text has the row's color.
    colored: bool = False
    bold: bool = False


@dataclass(frozen=True)
class DotChart:
    """A titled picture of rows; ``caption`` is HTML, ``heading`` stands above the texts."""

    title: str
    caption: str
    rows: Sequence[DotRow]
    heading: str = ""
    #: Where nothing differs: a vertical line.
    zero: float | None = None
    text: Callable[[float | None], str] = plain


def draw_rows(chart: DotChart, x: Scale) -> str:
    """The chart as an HTML figure; rows without a measurement have their text alone."""
    top = HEAD if chart.heading else 4
    bottom = top + ROW * len(chart.rows)
    body = [f"<text class='unit' x='{TEXTS}' y='12'>{visible_plain(chart.heading)}</text>"] if chart.heading else []
    body += _axis(chart, x, top, bottom)
    body += [_row(row, x, top + ROW * index + ROW / 2) for index, row in enumerate(chart.rows)]
    said = "; ".join(f"{row.name}: {row.text}" for row in chart.rows)
    return figure(chart.title, chart.caption, svg(f"{chart.title}. {said}", body, bottom + FOOT))


def _at(x: Scale, value: float) -> float:
    return LEFT + (RIGHT - LEFT) * x.place(value)


def _axis(chart: DotChart, x: Scale, top: float, bottom: float) -> list[str]:
    ticks = x.ticks()
    parts = [f"<path class='axis' d='M{LEFT} {bottom}H{RIGHT}'/>"]
    for tick in ticks[:: -(-len(ticks) // TICKS)]:
        at = _at(x, tick)
        parts.append(
            f"<path class='grid' d='M{at:.1f} {top}V{bottom}'/><text x='{at:.1f}' y='{bottom + 16}' "
            f"text-anchor='middle'>{visible_plain(chart.text(tick))}</text>"
        )
    if chart.zero is not None:
        parts.append(f"<path class='zero' d='M{_at(x, chart.zero):.1f} {top}V{bottom}'/>")
    return parts


def _row(row: DotRow, x: Scale, y: float) -> str:
    baseline = y + 4
    name = row.name if len(row.name) <= LONGEST else f"{row.name[: LONGEST - 1]}…"
    parts = [f"<text class='name inked' x='{NAMES}' y='{baseline:.1f}' text-anchor='end'>{visible_plain(name)}</text>"]
    # What sums dots up lies below them, so that neither hides the other.
    above, y = (y - 3, y + 3) if row.value is not None and (row.dots or row.crosses) else (y, y)
    dots = "".join(f"<circle cx='{_at(x, dot):.1f}' cy='{above:.1f}' r='2'/>" for dot in row.dots)
    parts.append(f"<g class='seeds'>{dots}</g>" if dots else "")
    if row.interval:
        low, high = (_at(x, end) for end in row.interval)
        bold = " bold" if row.bold else ""
        parts.append(f"<path class='whisker{bold}' d='M{low:.1f} {y:.1f}H{high:.1f}'/>")
    parts += [_cross(_at(x, cross), above) for cross in row.crosses]
    if row.value is not None:
        parts.append(_mark(row.shape, _at(x, row.value), y))
    ink = "" if row.colored else " inked"
    parts.append(f"<text class='name{ink}' x='{TEXTS}' y='{baseline:.1f}'>{visible_plain(row.text)}</text>")
    return f"<g class='c{row.color}'>{''.join(parts)}</g>"


def _cross(x: float, y: float) -> str:
    return f"<path class='cross' d='M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6'/>"


def _mark(shape: Shape, x: float, y: float) -> str:
    if shape == "square":
        return f"<rect x='{x - 3.5:.1f}' y='{y - 3.5:.1f}' width='7' height='7'/>"
    if shape == "diamond":
        return f"<path d='M{x - 4.6:.1f} {y:.1f}l4.6 -4.6l4.6 4.6l-4.6 4.6z'/>"
    ring = " class='ring'" if shape == "ring" else ""
    return f"<circle{ring} cx='{x:.1f}' cy='{y:.1f}' r='3.6'/>"
