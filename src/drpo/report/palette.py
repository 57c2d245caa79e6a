"""Colors: one table for the pages, and one paint for each objective wherever it is drawn.

Okabe and Ito's color-blind-safe colors, darkened on a light ground and lightened on a dark one until text in them can
be read. Objectives of one kind share a color and differ in their dashes.
"""

from __future__ import annotations

from typing import NamedTuple


class Color(NamedTuple):
    """One color on a light and on a dark ground."""

    light: str
    dark: str


#: Number → color; the style sheet's ``--c1`` and class ``c1`` are number 1.
COLORS = {
    1: Color("#0072b2", "#56b4e9"),  # blue
    2: Color("#ba4a00", "#f0954f"),  # vermilion
    3: Color("#007a55", "#35c797"),  # green
    4: Color("#666e77", "#98a1a9"),  # gray
    5: Color("#8f3f86", "#d98cc6"),  # purple
    6: Color("#8a6100", "#e6b84a"),  # amber
    7: Color("#1b1f23", "#e4e8eb"),  # ink
    8: Color("#0b6e82", "#63d3e6"),  # cyan
}
#: Number → the dashes of a line, in units of an SVG; 0 is solid.
DASHES = {0: "", 1: "6 3", 2: "1.5 3", 3: "8 3 1.5 3", 4: "14 4", 5: "6 2 1.5 2 1.5 2"}


class Paint(NamedTuple):
    """How an objective's line is drawn: a key of :data:`COLORS`, and one of :data:`DASHES`."""

    color: int
    dash: int = 0


#: What is not an objective of this package, such as one of a user's own.
OTHER = Paint(4, 2)
#: Objective → its paint on every page and in every figure.
PAINTS = {
    "drpo": Paint(1),
    "mask_drpo": Paint(1, 1),
    "ppo": Paint(2),
    "grpo": Paint(2, 1),
    "truly_ppo": Paint(2, 2),
    "cppo": Paint(2, 3),
    "spo": Paint(3),
    "sapo": Paint(3, 1),
    "vaco": Paint(3, 2),
    "m2po": Paint(3, 3),
    "icepop": Paint(2, 4),
    "rollout_is": Paint(2, 5),
    "rec_ring": Paint(3, 4),
    "minirl": Paint(4),
    "kimi": Paint(4, 1),
    "dppo_tv": Paint(5),
    "dppo_kl": Paint(5, 1),
    "dppo_topk_tv": Paint(5, 2),
    "dppo_topk_kl": Paint(5, 3),
    "ipo": Paint(5, 4),
    "kl_penalty": Paint(6),
    "tv_penalty": Paint(6, 1),
    "mdpo": Paint(6, 2),
    "troll": Paint(6, 3),
    "surrogate": Paint(7),
    "gspo": Paint(8),
    "gmpo": Paint(8, 1),
    "cispo": Paint(7, 1),
    "aipo": Paint(8, 2),
    "topr": Paint(8, 3),
}


def paint(objective: str) -> Paint:
    """The paint of an objective, by its registry name."""
    return PAINTS.get(objective, OTHER)


def color_variables(dark: bool) -> str:
    """The colors as declarations of a style sheet."""
    return " ".join(f"--c{number}: {color[dark]};" for number, color in COLORS.items())


def color_classes() -> str:
    """A rule for each color and for each kind of dashes."""
    colors = [f".c{number} {{ color: var(--c{number}); }}" for number in COLORS]
    dashes = [f"svg .d{number} .line {{ stroke-dasharray: {dash}; }}" for number, dash in DASHES.items() if dash]
    return "\n".join([*colors, *dashes])
