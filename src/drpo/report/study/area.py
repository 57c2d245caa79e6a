"""A study that draws its configurations: how its arms end along each drawn axis, and how wide their basins are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from drpo.report.html.quantities import percent_interval, plain
from drpo.report.study.curves import arm_lines
from drpo.report.svg.charts import Chart, draw
from drpo.report.svg.dot_rows import DotChart, DotRow, draw_rows
from drpo.report.svg.points import Point
from drpo.report.svg.scales import Linear, Log, Stops

Row = Mapping[str, Any]


def area_charts(study: Row, area: Row) -> list[str]:
    """A chart for each drawn axis of numbers, then one of the basins.

    Args:
        study: as study.yaml holds it.
        area: of one setting; ``label`` names the metric, ``along`` is axis → arm → (means, blocks), both (value of the
            axis, metric); ``basins`` has an ``arm``, what must be ``kept``, and a ``width`` with its interval each.
    """
    charts = [_along(study, axis, arms, area["label"]) for axis, arms in area["along"].items()]
    return [*charts, _basins(study, area["basins"])] if area["basins"] else charts


def _along(study: Row, axis: str, arms: Mapping[str, tuple[Any, Any]], label: str) -> str:
    lines = []
    for arm, line in arm_lines(study).items():
        means, blocks = arms[arm]
        points = [Point(at, value, None, None) for at, value in means]
        lines.append(replace(line, points=points, dots=blocks))
    said = axis.replace("_", " ")
    values = sorted({at for _, blocks in arms.values() for at, _ in blocks})
    ranged = isinstance(study["draws"][axis], Mapping)
    caption = (
        f"Means over {'parts of the range' if ranged else 'the blocks of each value'}. What else is drawn varies in "
        "each, in the same way for all arms. A small dot is a block."
    )
    chart = Chart(f"{label.capitalize()} against {said}", caption, lines, x_label=said, from_zero=False)
    return draw(chart, Log(values) if ranged else Stops(values))


def _basins(study: Row, basins: Sequence[Any]) -> str:
    lines, widths = arm_lines(study), {one.arm: one.width for one in basins}
    rows = [
        DotRow(
            arm,
            percent_interval(f"{100 * share.value:.0f} %", share.low, share.high),
            value=share.value,
            interval=(share.low, share.high),
            color=line.color,
            bold=True,
        )
        for arm, line in lines.items()
        if (share := widths.get(arm))
    ]
    kept = plain(basins[0].kept)
    caption = (
        f"Share of blocks in which final accuracy rises by {kept} or more: 80 % of what the best 5 % of all runs gain. "
        "The exact 95 % confidence interval."
    )
    return draw_rows(DotChart("Basin width", caption, rows, "share of blocks", text=_percent), Linear(0.0, 1.0))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"
