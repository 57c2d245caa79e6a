"""docs/figures/gradient_weights.{svg,png}: the gradient weights of four objectives at one token.

The weights are measured by differentiating the objectives themselves, not drawn from their formulas.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import drpo
from drpo.objectives.slices import token_weights
from drpo.report.figures.weights import INK, SOFT, Curve, Curves, weight_panels
from drpo.report.palette import NEUTRALS

DELTA = 0.15
RATIO = 0.2
OBJECTIVES = {
    f"DPPO (δ = {DELTA})": drpo.make_objective("dppo_tv", delta=DELTA),
    f"PPO (ratio 1 ± {RATIO})": drpo.make_objective("ppo", ratio_low=RATIO, ratio_high=RATIO),
    f"SPO (ε = {RATIO})": drpo.make_objective("spo", epsilon=RATIO),
    f"DRPO (δ = {DELTA})": drpo.make_objective("drpo", delta=DELTA),
}
PANELS = {"Common token: μ = 0.5": 0.5, "Rare token: μ = 0.01": 0.01}
#: The range of π − μ that is shown, and the samples along it.
SHIFTS, SAMPLES = (-0.1, 0.4), 20001


def curves(mu: float) -> Curves:
    """Label → w over π − μ for a token of behavior probability ``mu`` with a positive advantage."""
    shift = np.linspace(max(SHIFTS[0], -mu * 0.999), SHIFTS[1], SAMPLES)
    behavior = np.full_like(shift, mu)
    return {
        label: Curve(objective.name, shift, token_weights(objective, behavior + shift, behavior, 1.0))
        for label, objective in OBJECTIVES.items()
    }


def annotate(figure: Figure) -> None:
    """Say what to see where the panels differ."""
    common, rare = figure.axes
    said = {
        "fontsize": 9,
        "color": INK,
        "arrowprops": {"arrowstyle": "-", "color": SOFT, "linewidth": 0.8},
    }
    at_zero = {"xy": (DELTA, 0.8), "xytext": (0.185, 0.72), **said}
    common.annotate("At δ, DPPO jumps to 0\nand DRPO crosses it", **at_zero)
    rare.annotate("At δ, as on the left", **at_zero)
    common.annotate("PPO and SPO:\n0 at π = 0.6", (0.1, -0.02), (-0.09, -0.65), **said)
    rare.annotate("PPO and SPO:\n0 at π = 0.012", (0.003, -0.02), (0.025, -0.65), **said)
    rare.axvspan(SHIFTS[0], -0.01, facecolor=NEUTRALS["card"].light, edgecolor="none", zorder=0.5)
    rare.text((SHIFTS[0] - 0.01) / 2, 0.5, "π < 0", ha="center", fontsize=9, color=SOFT)


def figure() -> Figure:
    """A panel for a common token, and one for a rare token."""
    drawn = weight_panels(
        {title: curves(mu) for title, mu in PANELS.items()},
        boundary=DELTA,
        x_label="π − μ, for a positive advantage",
    )
    annotate(drawn)
    return drawn
