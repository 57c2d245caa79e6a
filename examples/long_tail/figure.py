"""Learning curves and thresholds of the long-tail study. Pure data in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drpo.report.figures.weights import INK, ground

#: Arm → color, dashes, width. Okabe and Ito's colors; arms that bound a ratio dashed, those that bound |π − μ| solid.
STYLES: dict[str, tuple[str, object, float]] = {
    "surrogate": ("#000000", (0, (1, 1.5)), 1.8),
    "ppo": ("#d55e00", (0, (5, 2)), 2.0),
    "grpo": ("#e69f00", (0, (5, 2)), 2.0),
    "spo": ("#cc79a7", (0, (5, 2)), 2.0),
    "dppo_tv": ("#009e73", "solid", 2.0),
    "dppo_kl": ("#56b4e9", "solid", 2.0),
    "drpo": ("#0072b2", "solid", 2.6),
    "drpo_12.5": ("#59636e", (0, (1, 1.5)), 1.8),
}


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
    """A column a setting: above, the mean over seeds with a band from the lowest quarter to the highest; below, the
    final value against the threshold."""
    figure = Figure(figsize=(0.8 + 3.7 * len(panels), 7.4), layout="constrained", facecolor="white")
    axes = figure.subplots(2, len(panels), squeeze=False)
    for (title, panel), (above, below) in zip(panels.items(), axes.T, strict=True):
        above.set_title(title, fontsize=11, color=INK, loc="left")
        for arm, values in panel.curves.items():
            _band(above, arm, panel.updates, values)
        for arm, (bounds, values) in panel.thresholds.items():
            color, dashes, width = STYLES[arm]
            below.plot(bounds, values, color=color, linestyle=dashes, linewidth=width, marker="o", markersize=4)
        below.axhline(float(np.mean([v[:, 0].mean() for v in panel.curves.values()])), color="#c8ced4", linewidth=1)
        below.set_xscale("log")
        above.set_xlabel("updates", color=INK)
        below.set_xlabel("threshold: ratio, probability or nats", color=INK)
        for part in (above, below):
            ground(part)
    axes[0, 0].set_ylabel("true value (clicks), evaluation seeds", color=INK)
    axes[1, 0].set_ylabel("final value, tuning seeds, best rate", color=INK)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, labelcolor=INK)
    return figure


def _band(panel: Axes, arm: str, updates: np.ndarray, values: np.ndarray) -> None:
    color, dashes, width = STYLES[arm]
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    panel.fill_between(updates, low, high, color=color, alpha=0.12, linewidth=0)
    panel.plot(updates, values.mean(0), color=color, linestyle=dashes, linewidth=width, label=arm)
