"""`drpo objectives --plot`: weights measured on the objectives themselves, drawn by `drpo.report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from drpo.objectives import Objective
from drpo.objectives.slices import token_weights
from drpo.report.figures.files import save_figure
from drpo.report.figures.heatmap import heatmap_figure
from drpo.report.figures.weights import Curve, Curves, weight_panels

#: Behavior probabilities of the panels that show w against the shift.
TOKENS = {"Common token: μ = 0.5": 0.5, "Rare token: μ = 0.01": 0.01}
#: Points along a curve, and along each side of a heat map.
SAMPLES, CELLS = 8001, 301


def write_plots(objectives: Mapping[str, Objective], folder: Path) -> list[Path]:
    """Both pictures of ``objectives`` (label → objective); a δ that all share is marked.

    Raises:
        WriteError: the folder cannot be written to.
    """
    bounds = {value for o in objectives.values() if (value := o.shift_bound) is not None}
    boundary = bounds.pop() if len(bounds) == 1 else None
    files = {"objectives-weights.png": weights, "objectives-heatmap.png": heatmap}
    written = []
    for name, draw in files.items():
        file = folder / name
        save_figure(draw(objectives, boundary), file)
        written.append(file)
    return written


def weights(objectives: Mapping[str, Objective], boundary: float | None) -> Figure:
    """w against π − μ for a positive advantage, a panel a token."""
    return weight_panels(
        {title: curves(objectives, mu) for title, mu in TOKENS.items()},
        boundary,
        x_label="π − μ, for a positive advantage",
    )


def curves(objectives: Mapping[str, Objective], mu: float, shifts: tuple[float, float] = (-0.1, 0.4)) -> Curves:
    """Label → w over π − μ for a token of behavior probability ``mu`` with a positive advantage."""
    shift = np.linspace(max(shifts[0], -mu * 0.999), min(shifts[1], (1 - mu) * 0.999), SAMPLES)
    behavior = np.full_like(shift, mu)
    return {
        label: Curve(objective.name, shift, token_weights(objective, behavior + shift, behavior, 1.0))
        for label, objective in objectives.items()
    }


def heatmap(objectives: Mapping[str, Objective], boundary: float | None) -> Figure:
    """w over (μ, π), a row for each sign of the advantage."""
    axis = np.linspace(0.002, 0.998, CELLS)
    policy, behavior = np.meshgrid(axis, axis, indexing="ij")
    panels: dict[str, Any] = {}
    for advantage, sign in ((1.0, "Â > 0"), (-1.0, "Â < 0")):
        for label, objective in objectives.items():
            panels[f"{label}\n{sign}"] = token_weights(objective, policy, behavior, advantage)
    return heatmap_figure(axis, panels, boundary)
