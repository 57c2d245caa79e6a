"""Every color of pages, figures and site: one paint for each objective wherever it is drawn, and the neutral colors.

Okabe and Ito's color-blind-safe colors, darkened on a light ground and lightened on a dark one until text in them can
be read. Objectives of one kind share a color and differ in their dashes.
"""

from __future__ import annotations

from collections.abc import Mapping
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
#: Name → what is not a line: grounds, text, frames and what needs attention; the style sheet's ``--ground`` and so on.
NEUTRALS = {
    "ground": Color("#ffffff", "#0f1317"),
    "card": Color("#f6f7f8", "#171c21"),
    "ink": Color("#1b1f23", "#e4e8eb"),
    "soft": Color("#59636e", "#9aa5af"),
    "edge": Color("#d9dee3", "#2c343b"),
    "grid": Color("#e3e7ea", "#242b31"),
    "warn": Color("#9a4b00", "#ffb366"),
    "warn-ground": Color("#fff4e5", "#2b2013"),
    "good": Color("#00704c", "#4fd1a1"),
    "link": Color("#00609b", "#7cc4f0"),
    "focus": Color("#0072b2", "#56b4e9"),
    "shade": Color("#0000002b", "#000000a6"),
}
#: Number → the dashes of a line, in units of an SVG; 0 is solid.
DASHES = {0: "", 1: "6 3", 2: "1.5 3", 3: "8 3 1.5 3", 4: "14 4", 5: "6 2 1.5 2 1.5 2"}


#: Most lines of one objective that dashes tell apart at a glance.
MOST_DASHED = 3


class Paint(NamedTuple):
    """How a line is drawn: a key of :data:`COLORS`, and one of :data:`DASHES`."""

    color: int
    dash: int = 0
    #: Place on a ramp from light, 0, to dark, 1, of the color: of one of many lines of an objective.
    shade: float | None = None


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
    "dro": Paint(6, 4),
    "surrogate": Paint(7),
    "gspo": Paint(8),
    "gmpo": Paint(8, 1),
    "luspo": Paint(8, 4),
    "vespo": Paint(8, 5),
    "fipo": Paint(4, 3),
    "clip_cov": Paint(7, 4),
    "kl_cov": Paint(7, 5),
    "cispo": Paint(7, 1),
    "aipo": Paint(8, 2),
    "topr": Paint(8, 3),
}


def paint(objective: str) -> Paint:
    """The paint of an objective, by its registry name."""
    return PAINTS.get(objective, OTHER)


def paints(objectives: Mapping[str, str]) -> dict[str, Paint]:
    """The paint of each line of one picture: its objective's color, and no two lines alike.

    Up to MOST_DASHED lines of one objective differ in dashes that no other line of their color has; more of them, or
    where too few dashes are left, in a ramp from light to dark, in the order in which they are given.

    Args:
        objectives: line → the name of its objective.
    """
    by_paint: dict[Paint, list[str]] = {}
    for line, objective in objectives.items():
        by_paint.setdefault(paint(objective), []).append(line)
    taken = set(by_paint)
    found: dict[str, Paint] = {}
    for base, alike in by_paint.items():
        free = [one for dash in DASHES if (one := Paint(base.color, dash)) not in taken]
        if len(alike) <= min(MOST_DASHED, 1 + len(free)):
            own = [base, *free][: len(alike)]
            taken.update(own)
        else:
            own = [base._replace(shade=place / (len(alike) - 1)) for place in range(len(alike))]
        found |= zip(alike, own, strict=True)
    return {line: found[line] for line in objectives}


def ramp(shade: float) -> tuple[str, int]:
    """What a color is mixed with at ``shade``, a key of :data:`NEUTRALS`, and the color's own share in percent.

    Light half: the ground; dark half: the ink. So the order survives print and a dark page.
    """
    return ("ground", round(40 + 120 * shade)) if shade <= 0.5 else ("ink", round(180 - 160 * shade))


def on_light(drawn: Paint) -> str:
    """The color of a line on a light ground, ``#rrggbb``."""
    color = COLORS[drawn.color].light
    if drawn.shade is None:
        return color
    other, share = ramp(drawn.shade)
    channels = zip(*(bytes.fromhex(one[1:]) for one in (color, NEUTRALS[other].light)), strict=True)
    return "#" + bytes(round((share * own + (100 - share) * mixed) / 100) for own, mixed in channels).hex()


def color_variables(dark: bool) -> str:
    """All colors as declarations of a style sheet."""
    named = NEUTRALS | {f"c{number}": color for number, color in COLORS.items()}
    return " ".join(f"--{name}: {color[dark]};" for name, color in named.items())


def color_classes() -> str:
    """A rule for each color and for each kind of dashes."""
    colors = [f".c{number} {{ color: var(--c{number}); }}" for number in COLORS]
    dashes = [f"svg .d{number} .line {{ stroke-dasharray: {dash}; }}" for number, dash in DASHES.items() if dash]
    return "\n".join([*colors, *dashes])
