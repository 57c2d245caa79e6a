"""How objectives end over an area of configurations, and what a family of claims came to: the figure of
docs/which-objective.md. Pure data in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from drpo.report.figures.weights import GROUND, INK, SOFT, frame, ground, stroke
from drpo.report.palette import COLORS, paint
from drpo.report.study.forest import MARKS

#: (value of the axis, metric).
Places = Sequence[tuple[float, float]]
#: Shape of an answer's mark on a study's page → matplotlib's marker.
MARKERS = {"dot": "o", "square": "s", "diamond": "D", "ring": "o"}


class Arm(NamedTuple):
    """One line: its objective decides the color."""

    objective: str
    means: Places
    blocks: Places


class Claim(NamedTuple):
    """A row of the forest: a difference with its interval, None while it has not run."""

    name: str
    answer: str
    difference: tuple[float, float, float] | None = None


def area_figure(arms: Mapping[str, Arm], before: float, claims: Sequence[Claim], margin: float) -> Figure:
    """Two panels: metric against learning rate, a line an arm; then the claims' differences.

    Args:
        arms: label → its line.
        before: the metric before training, a dotted line.
        claims: rows of the forest, from the top.
        margin: of equivalence, a band around no difference.
    """
    figure = Figure(figsize=(10.0, 4.3), layout="constrained", facecolor=GROUND)
    left, right = figure.subplots(1, 2, width_ratios=(1.12, 1.0))
    _lines(left, arms, before)
    _forest(right, claims, margin)
    return figure


def _lines(panel: Axes, arms: Mapping[str, Arm], before: float) -> None:
    panel.set_title("Final accuracy against learning rate", fontsize=11, color=INK, loc="left")
    panel.axhline(before, color=SOFT, linewidth=1, linestyle=":")
    for label, arm in arms.items():
        drawn = stroke(paint(arm.objective), 2.2)
        panel.plot(*zip(*arm.blocks, strict=True), ".", color=drawn["color"], markersize=3, alpha=0.4)
        panel.plot(*zip(*arm.means, strict=True), **drawn, marker="o", markersize=4, label=label)
    first = min(at for arm in arms.values() for at, _ in arm.blocks)
    panel.annotate(
        "before training", (first, before), (0, -4), textcoords="offset points", va="top", color=SOFT, fontsize=9
    )
    panel.set(xscale="log", xlabel="learning rate", ylabel="final held-out accuracy")
    panel.xaxis.label.set_color(INK)
    panel.yaxis.label.set_color(INK)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e−")))
    panel.xaxis.set_minor_formatter(NullFormatter())
    ground(panel)
    panel.legend(frameon=False, labelcolor=INK, fontsize=9, loc="lower left", handlelength=3.2)


def _forest(panel: Axes, claims: Sequence[Claim], margin: float) -> None:
    panel.set_title("Difference in final accuracy, 95 %", fontsize=11, color=INK, loc="left")
    panel.axvspan(-margin, margin, color=SOFT, alpha=0.14, linewidth=0)
    panel.axvline(0, color=INK, linewidth=0.9)
    for row, claim in enumerate(claims):
        if claim.difference is not None:
            value, low, high = claim.difference
            shape, number = MARKS[claim.answer]
            color = COLORS[number].light
            panel.hlines(row, low, high, color=color, linewidth=2)
            face = GROUND if shape == "ring" else color
            panel.plot(value, row, MARKERS[shape], color=color, markerfacecolor=face, markersize=7)
        panel.annotate(
            claim.answer, (1.0, row), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=9, color=INK,
        )  # fmt: skip
    panel.set_ylim(len(claims) - 0.4, -0.6)
    panel.set_yticks(range(len(claims)), [claim.name for claim in claims], color=INK, fontsize=10)
    panel.set_xlabel(f"gray: within ±{margin:g}", color=SOFT, fontsize=9)
    panel.tick_params(axis="x", colors=SOFT, labelsize=9)
    panel.tick_params(axis="y", length=0, labelcolor=INK)
    frame(panel)
    panel.spines["left"].set_visible(False)
