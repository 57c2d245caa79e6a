"""Heat maps of the gradient weight over (μ, π). Pure data in, a matplotlib figure out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from drpo.report.figures.weights import EDGE, GROUND, INK, SOFT, WARN
from drpo.report.palette import COLORS

#: Vermilion is corrective, white masked, blue is pushed; the plain surrogate (w = 1) is the middle of the blues.
RAMP = LinearSegmentedColormap.from_list(
    "weights", [(0.0, COLORS[2].light), (0.5, GROUND), (0.75, COLORS[1].dark), (1.0, COLORS[1].light)]
)
#: Weights beyond these are drawn as these.
LOWEST, HIGHEST = -2.0, 2.0
#: Most panels side by side.
COLUMNS = 4


def heatmap_figure(
    axis: np.ndarray, panels: Mapping[str, np.ndarray], boundary: float | None = None, title: str = ""
) -> Figure:
    """One panel an objective, all on the same axes and colors.

    Args:
        axis: ``[P]`` probabilities in rising order, of μ along the bottom and of π along the side.
        panels: title → weights ``[P, P]``, rows are π.
        boundary: δ; the lines π = μ ± δ are dotted.
        title: above all panels.
    """
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(
        figsize=(1.2 + 2.05 * columns, 0.6 + 2.3 * rows),
        layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.06),
        facecolor=GROUND,
    )
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    if title:
        figure.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left")
    norm = TwoSlopeNorm(0.0, LOWEST, HIGHEST)
    mesh = None
    for panel, (name, weights) in zip(axes.flat, panels.items(), strict=False):
        shown = np.clip(np.asarray(weights, dtype=float), LOWEST, HIGHEST)
        mesh = panel.pcolormesh(axis, axis, shown, cmap=RAMP, norm=norm, shading="nearest", rasterized=True)
        _ground(panel, name, boundary, axis)
    for panel in list(axes.flat)[len(panels) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("π", color=INK, rotation=0, labelpad=10, fontsize=12)
    for column in range(columns):
        lowest = max(row for row in range(rows) if row * columns + column < len(panels))
        axes[lowest, column].set_xlabel("μ", color=INK, fontsize=12)
        axes[lowest, column].tick_params(labelbottom=True)
    if mesh is not None:
        _scale(figure, mesh, axes)
    return figure


def _ground(panel: Axes, title: str, boundary: float | None, axis: np.ndarray) -> None:
    panel.set(xlim=(axis[0], axis[-1]), ylim=(axis[0], axis[-1]), aspect="equal")
    panel.set_title(title, fontsize=10, color=INK, loc="left")
    panel.plot(axis, axis, color=INK, linewidth=0.8)
    if boundary is not None and boundary < 1:
        for shifted in (axis + boundary, axis - boundary):
            panel.plot(axis, shifted, color=INK, linewidth=0.9, linestyle=(0, (1.5, 2)))
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    panel.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    panel.tick_params(colors=SOFT, labelsize=9)
    for side in panel.spines.values():
        side.set_color(EDGE)


def _scale(figure: Figure, mesh: object, axes: Sequence[Axes] | np.ndarray) -> None:
    bar = figure.colorbar(mesh, ax=axes, extend="both", shrink=0.9, aspect=26, pad=0.015)  # pyright: ignore[reportArgumentType]
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["−2", "−1", "0", "1", "2"])
    bar.set_label("gradient weight  w", color=INK)
    bar.ax.tick_params(colors=SOFT, labelsize=9)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.text(
        1.25,
        -1.5,
        "corrective",
        transform=bar.ax.get_yaxis_transform(),
        fontsize=9,
        color=WARN,
        va="center",
        ha="left",
        rotation=90,
    )
