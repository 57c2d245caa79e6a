"""|π − μ| by the probability of the token: the figure of docs/mismatch.md. Pure data in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drpo.report.figures.weights import GROUND, INK, ground, stroke
from drpo.report.palette import Paint

#: Of the sources of a panel, in their order: none is an objective.
PAINTS = [Paint(color) for color in (1, 2, 3, 5, 6)]
#: A bin with fewer tokens says nothing.
FEWEST = 20


def mismatch_panels(panels: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """A panel a kind of source: mean |π − μ| of the tokens in each bin of μ, both logarithmic, a line a source.

    Args:
        panels: title → source → its record, of which ``bins`` is read: ``above``, ``up_to``, ``tokens``, ``shift``.
    """
    columns = 2
    figure = Figure(figsize=(10.2, 3.9 * -(-len(panels) // columns)), layout="constrained", facecolor=GROUND)
    axes = figure.subplots(-(-len(panels) // columns), columns, sharey=True, squeeze=False)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    for panel, (title, sources) in zip(axes.flat, panels.items(), strict=False):
        panel.set_title(title, fontsize=11, color=INK, loc="left")
        for drawn, (label, record) in zip(PAINTS, sources.items(), strict=False):
            _draw(panel, label, drawn, record["bins"])
        _ground(panel, next(iter(sources.values()))["bins"])
    return figure


def bin_label(limits: Mapping[str, Any]) -> str:
    """`≤ 0.001`, `0.01 – 0.1`, `> 0.99`."""
    if limits["above"] == 0:
        return f"≤ {limits['up_to']:g}"
    if limits["up_to"] == 1:
        return f"> {limits['above']:g}"
    return f"{limits['above']:g} – {limits['up_to']:g}"


def _draw(panel: Axes, label: str, drawn: Paint, bins: Sequence[Mapping[str, Any]]) -> None:
    shown = [(at, part["shift"]) for at, part in enumerate(bins) if part["tokens"] >= FEWEST and part["shift"] > 0]
    panel.plot(
        [at for at, _ in shown],
        [value for _, value in shown],
        **stroke(drawn),
        marker="o",
        markersize=4,
        label=label,
    )


def _ground(panel: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    panel.set_yscale("log")
    panel.set_xticks(range(len(bins)), [bin_label(part) for part in bins], rotation=30, ha="right")
    panel.set_xlabel("μ of the sampled token", color=INK)
    panel.set_ylabel("mean |π − μ|", color=INK)
    panel.yaxis.set_tick_params(labelleft=True)
    ground(panel)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, labelcolor=INK, fontsize=9)
