"""Pictures of the gradient weight w against the signed shift π − μ. Pure data in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from drpo.report.palette import DASHES, NEUTRALS, Paint, on_light, paints

INK, SOFT, EDGE, GRID, WARN, GROUND = (
    NEUTRALS[name].light for name in ("ink", "soft", "edge", "grid", "warn", "ground")
)
CORRECTIVE = NEUTRALS["warn-ground"].light
#: Neighboring samples further apart than this are a jump, not a slope.
JUMP = 0.5
#: Most curves that a panel shows.
MOST = 8
#: Widths of the last and the first curve: a later one lies on an earlier one without hiding it.
WIDTHS = (2.2, 7.0)


class Curve(NamedTuple):
    """The weights of one objective."""

    #: Its registry name, which decides the color.
    objective: str
    #: ``[N]``, in rising order, and the weight at each.
    shift: np.ndarray
    weight: np.ndarray


#: Label → curve, the one that matters most last.
Curves = Mapping[str, Curve]


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
    shifts = np.concatenate([curve.shift for curves in panels.values() for curve in curves.values()])
    figure = Figure(figsize=(0.6 + 4.6 * len(panels), 4.4), layout="constrained", facecolor=GROUND)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (title, curves) in zip(axes, panels.items(), strict=True):
        panel.set(xlim=(shifts.min(), shifts.max()), ylim=weights)
        panel.set_xlabel(x_label, color=INK)
        _ground(panel, title, boundary)
        _draw_curves(panel, curves)
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
            handlelength=3.6,
            columnspacing=2.2,
        )
    return figure


def stroke(drawn: Paint, width: float = 2.0) -> dict[str, Any]:
    """How matplotlib draws a line of this paint; dashes, which matplotlib counts in widths, grow with their root."""
    dashes = tuple(float(length) / (2 * width) ** 0.5 for length in DASHES[drawn.dash].split())
    return {"color": on_light(drawn), "linestyle": (0, dashes) if dashes else "solid", "linewidth": width}


def _ground(panel: Axes, title: str, boundary: float | None) -> None:
    low, _ = panel.get_ylim()
    _, right = panel.get_xlim()
    panel.set_facecolor(GROUND)
    panel.axhspan(low, 0, color=CORRECTIVE, linewidth=0, zorder=0)
    panel.axhline(0, color=INK, linewidth=0.9, zorder=1)
    panel.axvline(0, color=EDGE, linewidth=0.9, zorder=1)
    panel.annotate(
        "w < 0: corrective",
        (right, 0),
        (-4, -6),
        textcoords="offset points",
        ha="right",
        va="top",
        color=WARN,
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
        panel.spines[side].set_color(EDGE)


def ground(panel: Axes) -> None:
    """A faint grid, ticks that do not shout, and the :func:`frame`."""
    panel.grid(which="major", color=GRID, linewidth=0.8)
    panel.tick_params(which="both", colors=SOFT, labelsize=9)
    frame(panel)


def _draw_curves(panel: Axes, curves: Curves) -> None:
    found = paints({label: curve.objective for label, curve in curves.items()})
    for (label, curve), width in zip(curves.items(), np.geomspace(*WIDTHS, len(curves))[::-1], strict=True):
        _draw_curve(panel, label, curve, stroke(found[label], float(width)))


def _draw_curve(panel: Axes, label: str, curve: Curve, style: Mapping[str, Any]) -> None:
    """The pieces between jumps as lines, the jumps as thin risers."""
    x, y = (np.asarray(values, dtype=float) for values in (curve.shift, curve.weight))
    jumps = np.flatnonzero(np.abs(np.diff(y)) > JUMP) + 1
    panel.plot(
        np.insert(x, jumps, np.nan),
        np.insert(y, jumps, np.nan),
        **style,
        label=label,
        solid_capstyle="butt",
        dash_capstyle="butt",
        zorder=3,
    )
    risers = {"color": style["color"], "linewidth": 1.1, "linestyle": (0, (1, 1)), "zorder": 2}
    panel.vlines(x[jumps], y[jumps - 1], y[jumps], **risers)
