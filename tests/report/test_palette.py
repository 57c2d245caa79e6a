"""One paint for each objective, and colors that can be told apart and read."""

from __future__ import annotations

import re
from collections import Counter

import pytest

import drpo
from drpo.report.figures.delta_curve import delta_curve
from drpo.report.html.style import STYLE
from drpo.report.palette import COLORS, DASHES, OTHER, PAINTS, paint, paints


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
