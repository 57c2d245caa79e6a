"""A study's arms over training, over δ, and over what its settings differ in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo.report.html.quantities import mean, percent, plain
from drpo.report.study.seeds import ended
from drpo.report.svg.charts import Chart, Line, draw
from drpo.report.svg.points import Point
from drpo.report.svg.scales import Log, Stops

Row = Mapping[str, Any]
#: (arm, curve) → (step, mean over seeds, lowest, highest), of one setting and phase.
Curves = Mapping[tuple[str, str], Sequence[tuple[float, float, float, float]]]

#: Arms in one picture: as many as there are colors.
ARMS = 5
#: Fewest values that make a curve: δs of one objective, or settings that differ in one number.
POINTS = 3
#: Most arms without δ that are drawn beside a family that has it.
REFERENCES = 2
#: Courses over training: key, title, and how values are written; first accuracy, then what a trust region met and did.
ACCURACY = ("accuracy", "Held-out accuracy", plain)
COURSES = (
    ("beyond_delta", "Tokens beyond δ", percent),
    ("corrective_share", "Corrective tokens (w < 0)", percent),
)
ESTIMATE = "Mean over seeds with its 95 % confidence interval; a small dot is a seed."


@dataclass(frozen=True)
class Family:
    """Arms of one objective that differ in nothing but δ, by rising δ."""

    objective: str
    members: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Panel:
    """Arms in one picture of their courses: arm → the line that it gets, its points still missing."""

    name: str
    lines: Mapping[str, Line]


def families(study: Row) -> list[Family]:
    """The objectives that the study has with at least POINTS values of δ."""
    found: dict[str, list[tuple[float, str]]] = {}
    for arm, keys in study["arms"].items():
        objective = keys.get("objective")
        if isinstance(objective, Mapping) and set(objective) == {"name", "delta"}:
            found.setdefault(objective["name"], []).append((float(objective["delta"]), arm))
    return [Family(name, sorted(members)) for name, members in found.items() if len(members) >= POINTS]


def _others(study: Row) -> tuple[list[str], list[str]]:
    """References, which have no δ, and the arms that remain, those that hypotheses name first."""
    grouped = {arm for family in families(study) for _, arm in family.members}
    named = [claim[side] for claim in study.get("hypotheses", ()) for side in ("ours", "theirs")]
    alone = [arm for arm in dict.fromkeys([*named, *study["arms"]]) if arm not in grouped]
    if not grouped:
        return [], alone
    without = [arm for arm in alone if "delta" not in _objective(study["arms"][arm])][:REFERENCES]
    return without, [arm for arm in alone if arm not in without]


def _objective(keys: Row) -> Row:
    objective = keys.get("objective")
    return objective if isinstance(objective, Mapping) else {}


def panels(study: Row) -> list[Panel]:
    """A picture for each family, its δ as a ramp from light to dark, then the other arms by up to ARMS."""
    references, rest = _others(study)
    dashed = {arm: Line(arm, (), color, dash=1) for color, arm in enumerate(references, start=2)}
    found = []
    for family in families(study):
        last = len(family.members) - 1
        ramp = {arm: Line(plain(delta), (), shade=place / last) for place, (delta, arm) in enumerate(family.members)}
        found.append(Panel(f"{family.objective} by δ", ramp | dashed))
    for group in _groups(rest):
        found.append(Panel("", {arm: Line(arm, (), color) for color, arm in enumerate(group, start=1)}))
    return found


def _groups(arms: Sequence[str]) -> list[Sequence[str]]:
    """As few as can be, of about the same size."""
    size = -(-len(arms) // -(-len(arms) // ARMS)) if arms else 1
    return [arms[start : start + size] for start in range(0, len(arms), size)]


def course(panel: Panel, curves: Curves, key: str, title: str, text: Callable[[float | None], str]) -> str:
    """One figure over the steps: the panel's arms, by the curves of a setting and phase."""
    last = max((point[0] for (_, name), points in curves.items() if name == key for point in points), default=1)
    lines = []
    for arm, line in panel.lines.items():
        points = [Point(*point) for point in curves.get((arm, key), ())]
        lines.append(Line(line.name, points, line.color, line.dash, shade=line.shade))
    title = f"{title}, {panel.name}" if panel.name else title
    chart = Chart(title, "Mean over seeds, and their range.", lines, text=text, from_zero=key != ACCURACY[0])
    return draw(chart, (0.0, float(last)))


def over_delta(study: Row, rows: Sequence[Row], summary: Sequence[Row]) -> list[str]:
    """Final accuracy over δ, a line a family; what has no δ, and the model before training, lie level beside it."""
    by_arm = {row["arm"]: row for row in summary}
    lines = []
    for color, family in enumerate(families(study), start=1):
        points = [_point(delta, by_arm[arm]) for delta, arm in family.members if arm in by_arm]
        dots = [(delta, row["final_accuracy"]) for delta, arm in family.members for row in ended(rows, arm)]
        lines.append(Line(family.objective, points, color, marks=True, dots=dots))
    values = [point.x for line in lines for point in line.points]
    if not values:
        return []
    ends = (min(values), max(values))
    for color, arm in enumerate(_others(study)[0], start=len(lines) + 1):
        level = [_point(x, by_arm[arm]) for x in ends if arm in by_arm]
        lines.append(Line(arm, level, color, dash=1))
    before = mean(row["accuracy_before"] for row in rows if row.get("accuracy_before") is not None)
    lines.append(Line("untrained", [Point(x, before, None, None) for x in ends], 4, dash=1))
    return [draw(Chart("Final accuracy against δ", ESTIMATE, lines, x_label="δ", from_zero=False), Log(values))]


def _point(x: float, row: Row) -> Point:
    return Point(x, row["final_accuracy"], row["low"], row["high"])


def setting_families(settings: Mapping[str, Row]) -> list[tuple[str, list[tuple[float, str]]]]:
    """Settings that differ in one numeric key alone and have at least POINTS values of it: the key, and (value, name)
    by rising value."""
    found = []
    keys = [key for keys in settings.values() for key, value in keys.items() if _is_number(value)]
    for key in dict.fromkeys(keys):
        alike: dict[str, dict[float, str]] = {}
        for name, given in settings.items():
            if _is_number(given.get(key)):
                rest = json.dumps({other: given[other] for other in given if other != key}, sort_keys=True)
                alike.setdefault(rest, {}).setdefault(given[key], name)
        found += [(key, sorted(group.items())) for group in alike.values() if len(group) >= POINTS]
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def over_settings(study: Row, rows: Sequence[Row], summary: Sequence[Row]) -> list[str]:
    """Final accuracy over each number in which settings differ, a line an arm.

    Args:
        study: the study as plain values.
        rows: the runs of one phase.
        summary: its rows, one a setting and arm.
    """
    by_place = {(row["setting"], row["arm"]): row for row in summary}
    references, rest = _others(study)
    arms = [arm for family in families(study) for _, arm in family.members]
    figures = []
    for key, members in setting_families(study["settings"]):
        for group in _groups([*references, *arms, *rest]):
            lines = []
            for color, arm in enumerate(group, start=1):
                points = [_point(value, by_place[name, arm]) for value, name in members if (name, arm) in by_place]
                dots = [
                    (value, row["final_accuracy"])
                    for value, name in members
                    for row in ended([row for row in rows if row["setting"] == name], arm)
                ]
                lines.append(Line(arm, points, color, marks=True, dots=dots))
            said = key.replace("_", " ")
            chart = Chart(f"Final accuracy against {said}", ESTIMATE, lines, x_label=said, from_zero=False)
            figures.append(draw(chart, Stops(value for value, _ in members)))
    return figures
