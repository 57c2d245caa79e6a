"""The picture of `drpo bench curves`: a panel a curve, medians where they belong, axes that say what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drpo.report.figures.cost_curves import FLAT, PANELS, cost_curves


def record() -> dict[str, Any]:
    """Two variants on two curves; three rounds each, the middle one in the middle."""
    rows = []
    for curve, variants in (("tokens", ("floor", "naive")), ("length", ("generate", "training step"))):
        for variant, slowness in zip(variants, (1.0, 3.0), strict=True):
            for size in (10, 100):
                seconds = slowness * size * 1e-3
                rows.append(
                    {
                        "case": "case",
                        "variant": variant,
                        "curve": curve,
                        "sizes": {curve: size, "hidden": 7},
                        "rounds": [2 * seconds, seconds, seconds / 4],
                        "tokens": [50.0] * 3,
                    }
                )
    rows.append({"case": "case", "variant": "generate", "curve": "group", "sizes": {"group": 1}, "skipped": "absent"})
    machine = {"cpu": "A processor", "threads": 1, "packages": {"torch": "2"}, "date": "2026-01-02"}
    return {"rows": rows[::-1], "machine": machine}


def test_points_are_medians_in_the_panels_unit() -> None:
    panels = dict(zip(PANELS, cost_curves(record()).axes, strict=True))
    tokens, length = panels["tokens"], panels["length"]
    lines = {line.get_label(): line for line in tokens.get_lines()}
    assert set(lines) == {"matrix products alone (floor)", "naive log-softmax"}
    assert np.asarray(lines["naive log-softmax"].get_xdata()).tolist() == [10, 100]
    assert np.asarray(lines["naive log-softmax"].get_ydata()).tolist() == pytest.approx([0.03, 0.3])
    lines = {line.get_label(): line for line in length.get_lines()}
    whole = np.asarray(lines["drpo, whole step"].get_ydata()).tolist()
    assert whole == pytest.approx([1e6 * 0.03 / 50, 1e6 * 0.3 / 50])


def test_axes_say_what_they_are() -> None:
    figure = cost_curves(record())
    assert len(figure.axes) == len(PANELS)
    for panel, (title, grows, cost) in zip(figure.axes, PANELS.values(), strict=True):
        assert panel.get_title(loc="left").startswith(title)
        assert (panel.get_xlabel(), panel.get_ylabel()) == (grows, cost)
        assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert "H = 7" in figure.axes[0].get_title(loc="left")
    assert "A processor, 1 thread, torch 2, 2026-01-02" in figure.get_supxlabel()


def test_a_curve_that_was_not_measured_is_an_empty_panel() -> None:
    group = cost_curves(record()).axes[list(PANELS).index("group")]
    assert not group.get_lines() and group.get_legend() is None


def test_a_flat_curve_is_drawn_flat() -> None:
    tokens = cost_curves(
        {**record(), "rows": [flat | {"rounds": [1.0, 1.1, 1.2]} for flat in record()["rows"][1:]]}
    ).axes[0]
    low, high = tokens.get_ylim()
    assert high / low >= FLAT * 0.99 and low < 1 < high
