"""The values of a drawing, for the page's script to show beside the pointer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drpo.report.html.data import json_attribute
from drpo.report.html.escape import readable
from drpo.report.html.quantities import plain

#: A line: its name, the number of its color, and its values as text by x, None where there is none.
Series = tuple[str, int, Sequence[tuple[float, str | None]]]


def readout(
    x_label: str,
    series: Sequence[Series],
    place: Callable[[float], float],
    write: Callable[[float], str] = plain,
) -> str:
    """The attribute of an SVG element that holds its values.

    Args:
        x_label: what x counts.
        series: the lines.
        place: x → where it lies, in the drawing's units.
        write: x → as text.
    """
    places = sorted({x for _, _, points in series for x, _ in points})
    lines = [
        {"name": readable(name), "color": color, "values": [dict(points).get(x) for x in places]}
        for name, color, points in series
    ]
    data = {
        "label": readable(x_label),
        "at": [round(place(x), 1) for x in places],
        "x": [write(x) for x in places],
        "lines": lines,
    }
    return f" data-read='{json_attribute(data)}'"
