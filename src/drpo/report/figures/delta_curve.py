"""Final accuracy against δ: the picture of docs/studies.md. Pure data in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from drpo.report.figures.weights import GROUND, INK, SOFT, ground, stroke
from drpo.report.palette import paint

#: Marker of each line, for eyes that see no color.
MARKERS = ("o", "s")
#: δ, value, lower and upper end of its interval.
Point = tuple[float, float, float, float]


def delta_curve(
    lines: Mapping[str, Sequence[Point]], band: tuple[str, tuple[float, float, float]], start: float
) -> Figure:
    """A line an objective with its intervals, and a band for the arm that has no δ.

    Args:
        lines: objective → its points, by δ.
        band: name, value and interval of the arm without δ.
        start: the accuracy before training.
    """
    figure = Figure(figsize=(7.6, 4.2), layout="constrained", facecolor=GROUND)
    panel = figure.subplots()
    name, (value, low, high) = band
    panel.axhspan(low, high, color=SOFT, alpha=0.14, linewidth=0)
    panel.axhline(value, color=SOFT, linewidth=1.5, label=f"{name} (no δ)")
    panel.axhline(start, color=SOFT, linewidth=1, linestyle=":", label="before training")
    for (label, points), marker, shift in zip(lines.items(), MARKERS, (0.98, 1.02), strict=True):
        xs, ys = [x * shift for x, *_ in points], [y for _, y, _, _ in points]
        ends = [[y - lower for _, y, lower, _ in points], [upper - y for _, y, _, upper in points]]
        panel.errorbar(
            xs,
            ys,
            yerr=ends,
            **stroke(paint(label), 1.8),
            marker=marker,
            markersize=5,
            elinewidth=1,
            capsize=2,
            label=label,
        )
    panel.set_xscale("log")
    deltas = sorted({x for points in lines.values() for x, *_ in points})
    panel.set_xticks(deltas, [f"{x:g}" for x in deltas], rotation=45)
    panel.minorticks_off()
    panel.set_xlabel("δ", color=INK)
    panel.set_ylabel("final held-out accuracy", color=INK)
    ground(panel)
    panel.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure
