"""docs/figures/heatmap.png: the gradient weight over (μ, π), as `drpo objectives --plot` draws it."""

from __future__ import annotations

from matplotlib.figure import Figure

from drpo.cli.plots import heatmap
from drpo.objectives import make_objective

DELTA = 0.15
#: Panel title → objective.
PANELS = {
    "PPO (r within 1 ± 0.2)": make_objective("ppo"),
    "SPO (ε = 0.2)": make_objective("spo"),
    f"DPPO (δ = {DELTA})": make_objective("dppo_tv", delta=DELTA),
    f"DRPO (δ = {DELTA})": make_objective("drpo", delta=DELTA),
}


def figure() -> Figure:
    """A panel an objective."""
    return heatmap(PANELS, boundary=DELTA)
