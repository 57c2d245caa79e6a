"""Every seed of every arm: where it ended, how far it fell, and whether it collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drpo.report.html.quantities import percent_interval, plain
from drpo.report.svg.dot_rows import DotChart, DotRow, draw_rows
from drpo.report.svg.scales import Linear, Scale

Row = Mapping[str, Any]


def ended(rows: Sequence[Row], arm: str) -> list[Row]:
    """The runs of an arm that finished or failed and have figures: those that its summary is of."""
    return [
        row
        for row in rows
        if row["arm"] == arm and row["status"] in ("finished", "failed") and row.get("final_accuracy") is not None
    ]


def seed_charts(rows: Sequence[Row], summary: Sequence[Row], colors: Mapping[str, int]) -> list[str]:
    """Final accuracy, then drawdown with collapses: a row an arm, a dot a seed.

    Args:
        rows: the runs of one setting and phase.
        summary: a row an arm over its seeds.
        colors: arm → the number of its color.
    """
    return [_final(rows, summary, colors), _drawdown(rows, summary, colors)]


def _final(rows: Sequence[Row], summary: Sequence[Row], colors: Mapping[str, int]) -> str:
    lines, values = [], []
    for one in summary:
        whole, collapsed = _apart(ended(rows, one["arm"]), "final_accuracy")
        interval = None if one["low"] is None else (one["low"], one["high"])
        said = plain(one["final_accuracy"]) + (f" ({plain(one['low'])}–{plain(one['high'])})" if interval else "")
        lines.append(
            DotRow(
                one["arm"],
                said,
                whole,
                collapsed,
                one["final_accuracy"],
                interval,
                color=colors[one["arm"]],
                bold=True,
            )
        )
        values += [*whole, *collapsed, *(interval or ())]
    caption = "Small dot: a seed; cross: a collapsed one; large dot: the mean, with its 95 % confidence interval."
    return draw_rows(DotChart("Final accuracy of every seed", caption, lines, "mean (95 %)"), _axis(values))


def _drawdown(rows: Sequence[Row], summary: Sequence[Row], colors: Mapping[str, int]) -> str:
    lines, values = [], [0.0]
    for one in summary:
        runs = ended(rows, one["arm"])
        whole, collapsed = _apart(runs, "drawdown")
        share, said = one["collapse_interval"], "–"
        if share is not None:
            said = percent_interval(f"{one['collapsed']} of {len(runs)}", share.low, share.high)
        lines.append(DotRow(one["arm"], said, whole, collapsed, color=colors[one["arm"]]))
        values += [*whole, *collapsed]
    caption = (
        "Largest fall of each seed below its best so far. Cross: a collapsed run, which ended below half of its best. "
        "Right: how many collapsed, and the exact 95 % confidence interval of that share."
    )
    return draw_rows(DotChart("Drawdown and collapse", caption, lines, "collapsed (95 %)"), _axis(values))


def _apart(runs: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """The figure of the runs that held, and of those that collapsed."""
    return [row[key] for row in runs if not row["collapsed"]], [row[key] for row in runs if row["collapsed"]]


def _axis(values: Sequence[float]) -> Scale:
    return Linear(min(values, default=0.0), max(values, default=1.0), ticks=3)
