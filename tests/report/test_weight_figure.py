"""The picture of gradient weights: jumps stay jumps, and the shipped one can be drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import drpo
from drpo.cli.objectives import labels
from drpo.cli.plots import heatmap
from drpo.report.figures.heatmap import heatmap_figure
from drpo.report.figures.weights import Curve, weight_figure, weight_panels
from tools.docs import weight_figure as shipped

SHIFT = np.linspace(-0.1, 0.4, 501)


def test_a_jump_is_a_gap_in_the_curve_with_a_riser() -> None:
    mask = np.where(SHIFT > 0.15, 0.0, 1.0)
    (panel,) = weight_figure(
        {"DPPO": Curve("dppo_tv", SHIFT, mask), "DRPO": Curve("drpo", SHIFT, 1 - SHIFT / 0.15)}, boundary=0.15
    ).axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata(), dtype=float) for line in panel.lines}
    assert np.isnan(lines["DPPO"]).sum() == 1
    assert not np.isnan(lines["DRPO"]).any()
    texts = [text.get_text() for text in panel.texts]
    assert "δ = 0.15" in texts and "w < 0: corrective" in texts


def test_panels_share_their_axes(tmp_path: Path) -> None:
    figure = weight_panels(
        {"common": {"a": Curve("drpo", SHIFT, SHIFT)}, "rare": {"a": Curve("drpo", SHIFT[80:], SHIFT[80:])}}
    )
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim() == (-0.1, 0.4)
    figure.savefig(tmp_path / "figure.svg")


def test_the_shipped_figure_shows_what_the_papers_say() -> None:
    curves = {label.split()[0]: curve for label, curve in shipped.curves(0.01).items()}
    at = {name: np.interp([0.001, 0.05, 0.3], curve.shift, curve.weight) for name, curve in curves.items()}
    assert at["DRPO"] == pytest.approx([1 - 0.001 / 0.15, 1 - 0.05 / 0.15, -1.0], abs=1e-6)
    assert at["DPPO"] == pytest.approx([1, 1, 0])
    assert at["PPO"] == pytest.approx([1, 0, 0])
    assert at["SPO"] == pytest.approx([0.5, -24, -149], rel=1e-4)


def test_a_heat_map_shows_every_panel_with_its_weights_cut_to_the_scale() -> None:
    axis = np.linspace(0, 1, 11)
    weights = np.add.outer(axis, axis) * 5 - 5  # −5 … 5
    figure = heatmap_figure(axis, {f"panel {i}": weights for i in range(5)}, boundary=0.2)
    panels = [panel for panel in figure.axes if panel.get_title(loc="left")]
    assert [panel.get_title(loc="left") for panel in panels] == [f"panel {i}" for i in range(5)]
    for panel in panels:
        (mesh,) = panel.collections
        values = np.asarray(mesh.get_array()).reshape(11, 11)
        assert np.allclose(values, np.clip(weights, -2, 2))
        assert len(panel.lines) == 3  # π = μ and π = μ ± δ
    (plain,) = [a for a in heatmap_figure(axis, {"one": weights}, boundary=12.5).axes if a.get_title(loc="left")]
    assert len(plain.lines) == 1


def test_heat_maps_have_mu_along_the_bottom() -> None:
    """DRPO's weight for a rare token that has become likely is negative: top left, for Â > 0."""
    figure = heatmap({"drpo": drpo.make_objective("drpo")}, boundary=0.15)
    panel = next(a for a in figure.axes if a.get_title(loc="left") == "drpo\nÂ > 0")
    (mesh,) = panel.collections
    values = np.asarray(mesh.get_array()).reshape(301, 301)
    assert values[-1, 0] == -2 and values[0, -1] == 2 and values[150, 150] == pytest.approx(1)


def test_labels_name_what_was_changed() -> None:
    made = [
        drpo.make_objective("drpo"),
        drpo.make_objective("drpo", delta=0.2),
        drpo.make_objective("grpo", anchor="proximal", modifiers=["tis"]),
    ]
    found = list(labels(made))
    assert found[:2] == ["drpo", "drpo (delta = 0.2)"]
    assert found[2] == "grpo (anchor = proximal, tis)"
