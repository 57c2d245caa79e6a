"""Learning curves and thresholds of the long-tail study. Pure data in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drpo.report.figures.weights import EDGE, GROUND, INK, ground, stroke
from drpo.report.palette import Paint, on_light, paints
from examples.long_tail.study import ARMS

#: Settings side by side.
COLUMNS = 2


@dataclass(frozen=True)
class Panel:
    """One setting.

    Args:
        updates: ``[K]``, when the value was measured.
        curves: arm → ``[S, K]``, true values over training, a row a seed.
        thresholds: arm → (thresholds, final values), each ``[T]``.
    """

    updates: np.ndarray
    curves: Mapping[str, np.ndarray]
    thresholds: Mapping[str, tuple[np.ndarray, np.ndarray]]


def long_tail_figure(panels: Mapping[str, Panel]) -> Figure:
    """Two panels a setting: above, the mean over seeds with a band from the lowest quarter to the highest; below, the
    final value against the threshold."""
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4.3 * COLUMNS, 0.5 + 5.6 * rows), layout="constrained", facecolor=GROUND)
    axes = figure.subplots(2 * rows, COLUMNS, squeeze=False)
    drawn = paints({name: arm.objective for name, arm in ARMS.items()})
    for at, (title, panel) in enumerate(panels.items()):
        row, column = divmod(at, COLUMNS)
        above, below = axes[2 * row : 2 * row + 2, column]
        above.set_title(title, fontsize=11, color=INK, loc="left")
        for arm, values in panel.curves.items():
            _band(above, arm, drawn[arm], panel.updates, values)
        for arm, (bounds, values) in panel.thresholds.items():
            below.plot(bounds, values, **stroke(drawn[arm]), marker="o", markersize=4)
        below.axhline(float(np.mean([v[:, 0].mean() for v in panel.curves.values()])), color=EDGE, linewidth=1)
        below.set_xscale("log")
        above.set_xlabel("updates", color=INK)
        below.set_xlabel("threshold: ratio, probability or nats", color=INK)
        for part in (above, below):
            ground(part)
        if column == 0:
            above.set_ylabel("true value, evaluation seeds", color=INK)
            below.set_ylabel("final value, tuning seeds", color=INK)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK)
    return figure


def _band(panel: Axes, arm: str, drawn: Paint, updates: np.ndarray, values: np.ndarray) -> None:
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    panel.fill_between(updates, low, high, color=on_light(drawn), alpha=0.12, linewidth=0)
    panel.plot(updates, values.mean(0), **stroke(drawn), label=arm)
