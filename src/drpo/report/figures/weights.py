"""Pictures of the gradient weight w against the signed shift π − μ. Pure data in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

#: Label → (shift, weight), each ``[N]``, in order of the shift.
Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]

#: Color, dashes and width. Okabe and Ito's color-blind-safe colors, dashes for those who see none, and
#: widths that let a later curve lie on an earlier one without hiding it; the last is the loudest.
STYLES = (
    ("#000000", (0, (1, 2.5)), 1.8),
    ("#cc79a7", (0, (6, 1.5, 1, 1.5)), 2.0),
    ("#56b4e9", (0, (6, 2)), 2.0),
    ("#e69f00", "solid", 2.0),
    ("#b9c0c7", "solid", 6.0),
    ("#d55e00", (0, (3, 1.5)), 2.0),
    ("#009e73", (0, (1, 1.1)), 2.4),
    ("#0072b2", "solid", 2.6),
)
INK, SOFT, CORRECTIVE = "#1b1f23", "#59636e", "#fdf1e7"
#: Neighboring samples further apart than this are a jump, not a slope.
JUMP = 0.5


def weight_figure(curves: Curves, boundary: float | None = None, title: str = "") -> Figure:
    """One panel of named curves; ``boundary`` marks δ."""
    return weight_panels({title: curves}, boundary)


def weight_panels(
    panels: Mapping[str, Curves],
    boundary: float | None = None,
    weights: tuple[float, float] = (-1.1, 2.2),
    x_label: str = "π − μ",
) -> Figure:
    """Panels side by side on the same axes, one a title, with one legend.

    Args:
        panels: title → curves.
        boundary: δ, marked in every panel.
        weights: lowest and highest w shown; steeper curves leave the picture.
        x_label: below every panel.
    """
    shifts = [value for curves in panels.values() for x, _ in curves.values() for value in (x.min(), x.max())]
    figure = Figure(figsize=(0.6 + 4.6 * len(panels), 4.4), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (title, curves) in zip(axes, panels.items(), strict=True):
        panel.set(xlim=(min(shifts), max(shifts)), ylim=weights)
        panel.set_xlabel(x_label, color=INK)
        _ground(panel, title, boundary)
        for (name, curve), style in zip(curves.items(), _styles(len(curves)), strict=True):
            _draw_curve(panel, name, curve, style)
    axes[0].set_ylabel("gradient weight  w", color=INK)
    handles, labels = axes[0].get_legend_handles_labels()
    if labels:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=4,
            frameon=False,
            labelcolor=INK,
            handlelength=2.6,
            columnspacing=2.2,
        )
    return figure


def _styles(count: int) -> Sequence[tuple[str, object, float]]:
    """As many styles as curves, ending with the loudest."""
    return [STYLES[(i - count) % len(STYLES)] for i in range(count)]


def _ground(panel: Axes, title: str, boundary: float | None) -> None:
    low, _ = panel.get_ylim()
    _, right = panel.get_xlim()
    panel.set_facecolor("white")
    panel.axhspan(low, 0, color=CORRECTIVE, linewidth=0, zorder=0)
    panel.axhline(0, color=INK, linewidth=0.9, zorder=1)
    panel.axvline(0, color="#c8ced4", linewidth=0.9, zorder=1)
    panel.annotate(
        "w < 0: corrective",
        (right, 0),
        (-4, -6),
        textcoords="offset points",
        ha="right",
        va="top",
        color="#9a4b00",
        fontsize=9,
    )
    if boundary is not None:
        panel.axvline(boundary, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        panel.annotate(
            f"δ = {boundary:g}",
            (boundary, 1),
            (3, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=INK,
        )
    panel.set_title(title, fontsize=11, color=INK, loc="left")
    panel.yaxis.set_major_locator(MultipleLocator(1))
    panel.tick_params(colors=SOFT, labelsize=9)
    frame(panel)


def frame(panel: Axes) -> None:
    """Axes on the left and below alone, faint."""
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color("#c8ced4")


def ground(panel: Axes) -> None:
    """A faint grid, ticks that do not shout, and the :func:`frame`."""
    panel.grid(which="major", color="#e3e7ea", linewidth=0.8)
    panel.tick_params(which="both", colors=SOFT, labelsize=9)
    frame(panel)


def _draw_curve(panel: Axes, name: str, curve: tuple[np.ndarray, np.ndarray], style: tuple[str, object, float]) -> None:
    """The pieces between jumps as lines, the jumps as thin risers."""
    x, y = (np.asarray(values, dtype=float) for values in curve)
    color, dashes, width = style
    jumps = np.flatnonzero(np.abs(np.diff(y)) > JUMP) + 1
    panel.plot(
        np.insert(x, jumps, np.nan),
        np.insert(y, jumps, np.nan),
        color=color,
        linestyle=dashes,
        linewidth=width,
        label=name,
        solid_capstyle="butt",
        dash_capstyle="butt",
        zorder=3,
    )
    panel.vlines(x[jumps], y[jumps - 1], y[jumps], color=color, linewidth=1.1, linestyle=(0, (1, 1)), zorder=2)
