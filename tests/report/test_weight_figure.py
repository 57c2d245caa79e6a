"""The picture of gradient weights: jumps stay jumps, and the shipped one can be drawn again."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from drpo.report.weights import weight_figure, weight_panels

SHIFT = np.linspace(-0.1, 0.4, 501)


def test_a_jump_is_a_gap_in_the_curve_with_a_riser() -> None:
    mask = np.where(SHIFT > 0.15, 0.0, 1.0)
    (panel,) = weight_figure({"DPPO": (SHIFT, mask), "DRPO": (SHIFT, 1 - SHIFT / 0.15)}, boundary=0.15).axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata(), dtype=float) for line in panel.lines}
    assert np.isnan(lines["DPPO"]).sum() == 1
    assert not np.isnan(lines["DRPO"]).any()
    texts = [text.get_text() for text in panel.texts]
    assert "δ = 0.15" in texts and "w < 0: pulled back" in texts


def test_panels_share_their_axes(tmp_path: Path) -> None:
    figure = weight_panels({"common": {"a": (SHIFT, SHIFT)}, "rare": {"a": (SHIFT[80:], SHIFT[80:])}})
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim() == (-0.1, 0.4)
    figure.savefig(tmp_path / "figure.svg")


def test_the_script_measures_what_the_papers_say() -> None:
    script = runpy.run_path(
        str(Path(__file__).parents[2] / "scripts" / "plot_gradient_weights.py"), run_name="script"
    )
    curves = {label.split()[0]: curve for label, curve in script["curves"](0.01).items()}
    at = {name: np.interp([0.001, 0.05, 0.3], *curve) for name, curve in curves.items()}
    assert at["DRPO"] == pytest.approx([1 - 0.001 / 0.15, 1 - 0.05 / 0.15, -1.0], abs=1e-6)
    assert at["DPPO"] == pytest.approx([1, 1, 0])
    assert at["PPO"] == pytest.approx([1, 0, 0])
    assert at["SPO"] == pytest.approx([0.5, -24, -149], rel=1e-4)
