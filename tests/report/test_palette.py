"""One paint for each objective, and colors that can be told apart and read."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

import drpo
from drpo.report.figures.delta_curve import delta_curve
from drpo.report.figures.weights import Curve, weight_figure
from drpo.report.html.style import STYLE
from drpo.report.palette import COLORS, DASHES, NEUTRALS, OTHER, PAINTS, Paint, on_light, paint, paints
from drpo.report.study.curves import arm_lines
from tools import ROOT
from tools.site.figure_colors import figure_colors

#: `#rgb`, `#rrggbb` or `#rrggbbaa`.
HEX = re.compile(r"(?<![\w&#])#(?:[0-9a-fA-F]{8}|[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")
PALETTE = ROOT / "src" / "drpo" / "report" / "palette.py"


def test_every_objective_has_a_paint_of_its_own() -> None:
    assert set(PAINTS) == set(drpo.OBJECTIVES)
    assert [used for used, times in Counter(PAINTS.values()).items() if times > 1] == []
    assert all(one.color in COLORS and one.dash in DASHES for one in (*PAINTS.values(), OTHER))
    assert paint("my_own") == OTHER and OTHER not in PAINTS.values()


def test_lines_of_one_picture_have_their_objective_s_color_and_are_never_alike() -> None:
    lines = {"a": "drpo", "b": "drpo", "c": "mask_drpo", "d": "my_own", "e": "yours", "f": "kimi"}
    found = paints(lines)
    assert list(found) == list(lines) and len(set(found.values())) == len(lines)
    assert all(found[line].color == paint(objective).color for line, objective in lines.items())
    assert found["a"] == paint("drpo") and found["c"] == paint("mask_drpo")
    many = {str(place): "drpo" for place in range(9)} | {"m": "mask_drpo"}
    found = paints(many)
    assert len(set(found.values())) == len(many)
    assert [found[str(place)].shade for place in range(9)] == [place / 8 for place in range(9)]


def test_only_the_palette_has_hex_colors() -> None:
    kinds = {".py", ".css", ".js", ".html", ".md", ".yaml", ".toml"}
    files = [file for room in ("src", "tools", "examples") for file in (ROOT / room).rglob("*") if file.suffix in kinds]
    found = {
        file.relative_to(ROOT).as_posix(): colors
        for file in files
        if file != PALETTE and (colors := HEX.findall(file.read_text(encoding="utf-8")))
    }
    assert found == {}
    assert len(HEX.findall(PALETTE.read_text(encoding="utf-8"))) == 2 * len(COLORS) + 2 * len(NEUTRALS)


def test_an_objective_has_one_color_and_one_kind_of_dashes_on_pages_figures_and_site() -> None:
    site = dict(re.findall(r"\.gw-(\w+) \{ (.*?) \}", figure_colors()))
    study = arm_lines({"arms": {name: {"objective": {"name": name}} for name in PAINTS}})
    values = np.array([0.0, 0.1])
    for name, own in PAINTS.items():
        assert site.pop(name) == f"color: var(--c{own.color}); stroke-dasharray: {DASHES[own.dash] or 'none'};"
        assert (study[name].color, study[name].dash) == own[:2]
        (panel,) = weight_figure({"label": Curve(name, values, values)}).axes
        (line,) = [line for line in panel.lines if line.get_label() == "label"]
        assert line.get_color() == COLORS[own.color].light and line.is_dashed() == bool(own.dash)
    assert site == {}
    light, chosen, preferred = figure_colors().splitlines()[:3]
    assert all(f"--c{number}: {color.light};" in light for number, color in COLORS.items())
    assert all(
        f"--c{number}: {color.dark};" in rule for number, color in COLORS.items() for rule in (chosen, preferred)
    )


def test_a_ramp_goes_from_the_ground_over_the_color_to_the_ink() -> None:
    assert on_light(Paint(1, shade=0.5)) == COLORS[1].light == on_light(Paint(1))
    light, dark = (int(on_light(Paint(1, shade=shade))[1:3], 16) for shade in (0.0, 1.0))
    assert light == round(0.4 * 0x00 + 0.6 * 0xFF) and dark == round(0.2 * 0x00 + 0.8 * 0x1B)


def test_the_figure_over_delta_has_the_colors_of_the_pages() -> None:
    points = [(0.1, 0.5, 0.4, 0.6), (0.3, 0.6, 0.5, 0.7)]
    panel = delta_curve({"drpo": points, "dppo_tv": points}, ("surrogate", (0.4, 0.3, 0.5)), 0.2).axes[0]
    drawn = {one.get_label(): one.lines[0].get_color() for one in panel.containers}  # pyright: ignore
    assert drawn == {name: COLORS[paint(name).color].light for name in ("drpo", "dppo_tv")}


def test_the_style_sheet_has_every_color_and_kind_of_dashes() -> None:
    light, _, dark = STYLE.partition("prefers-color-scheme: dark")
    for number, color in COLORS.items():
        assert f"--c{number}: {color.light};" in light and f"--c{number}: {color.dark};" in dark
        assert f".c{number} {{" in STYLE
    assert len(re.findall(r"svg \.d\d \.line", STYLE)) == len(DASHES) - 1


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_color_has_enough_contrast(dark: bool) -> None:
    light, _, rest = STYLE.partition("prefers-color-scheme: dark")
    colors = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]+)", rest if dark else light))
    for text in ("ink", "soft", "warn", "good", "link", *(f"c{number}" for number in COLORS)):
        for ground in ("ground", "card", "warn-ground"):
            low, high = sorted((_luminance(colors[text]), _luminance(colors[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def _luminance(color: str) -> float:
    """Relative luminance, WCAG 2."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
