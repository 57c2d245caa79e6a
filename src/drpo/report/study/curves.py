"""A study's arms over training, over δ, and over what its settings differ in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drpo.report.html.quantities import mean, percent, plain
from drpo.report.palette import OTHER, paint, paints
from drpo.report.study.seeds import ended
from drpo.report.svg.charts import Chart, Line, draw
from drpo.report.svg.points import Point
from drpo.report.svg.scales import Log, Stops

Row = Mapping[str, Any]
Write = Callable[[float | None], str]
#: (arm, curve) → (step, mean over seeds, lowest, highest), of one setting and phase.
Curves = Mapping[tuple[str, str], Sequence[tuple[float, float, float, float]]]

#: Fewest values that make a curve: δs of one objective, or settings that differ in one number.
POINTS = 3
#: The objective of a run that names none.
DEFAULT = "drpo"
#: Most arms whose range over seeds is drawn: more bands would hide each other.
BANDS = 5
#: Courses over training: key, title, and how values are written; first accuracy, then what a trust region met and did.
ACCURACY = ("accuracy", "Held-out accuracy", plain)
COURSES = (
    ("beyond_delta", "Tokens beyond δ", percent),
    ("corrective_share", "Corrective tokens (w < 0)", percent),
)
ESTIMATE = "Mean over seeds with its 95 % confidence interval; a small dot is a seed."
FINAL = "Labels: final accuracy, the mean of the last evaluations, as in the table."


@dataclass(frozen=True)
class Family:
    """Arms of one objective that differ in nothing but δ, by rising δ."""

    objective: str
    members: Sequence[tuple[float, str]]


def families(study: Row) -> list[Family]:
    """The objectives that the study has with at least POINTS values of δ."""
    found: dict[str, list[tuple[float, str]]] = {}
    for arm, keys in study["arms"].items():
        objective = keys.get("objective")
        if isinstance(objective, Mapping) and set(objective) == {"name", "delta"}:
            found.setdefault(objective["name"], []).append((float(objective["delta"]), arm))
    return [Family(name, sorted(members)) for name, members in found.items() if len(members) >= POINTS]


def _objective(keys: Row) -> Row:
    objective = keys.get("objective")
    return objective if isinstance(objective, Mapping) else {}


def _objective_name(study: Row, arm: str) -> str:
    """What the arm trains with: its own objective, else that of all arms."""
    own, base = _objective(study["arms"][arm]), _objective(study.get("base", {}))
    return str(own.get("name") or base.get("name") or DEFAULT)


def arm_lines(study: Row) -> dict[str, Line]:
    """Each arm's line, its points still missing: the same in every picture, and no two alike.

    Families by rising δ come first, then the other arms, those that hypotheses name before the rest.
    """
    grouped = [arm for family in families(study) for _, arm in family.members]
    named = [claim[side] for claim in study.get("hypotheses", ()) for side in ("ours", "theirs")]
    order = [arm for arm in dict.fromkeys([*grouped, *named, *study["arms"]]) if arm in study["arms"]]
    found = paints({arm: _objective_name(study, arm) for arm in order})
    return {arm: Line(arm, (), one.color, one.dash, shade=one.shade) for arm, one in found.items()}


def course(
    lines: Mapping[str, Line], curves: Curves, kind: tuple[str, str, Write], final: Mapping[str, float | None]
) -> str:
    """One figure over the steps with every arm of a setting and phase.

    Args:
        lines: arm → its line.
        curves: of the setting and phase.
        kind: :data:`ACCURACY` or one of :data:`COURSES`.
        final: arm → its final accuracy.
    """
    key, title, write = kind
    last = max((point[0] for (_, name), points in curves.items() if name == key for point in points), default=1)
    ranged = len(lines) <= BANDS
    shown = []
    for arm, line in lines.items():
        points = [Point(*(point if ranged else (*point[:2], None, None))) for point in curves.get((arm, key), ())]
        end = write(final.get(arm)) if kind is ACCURACY else ""
        shown.append(replace(line, points=points, end=end))
    said = "Mean over seeds, and their range." if ranged else "Mean over seeds."
    said += f" {FINAL}" if kind is ACCURACY else " Labels: at the last step."
    chart = Chart(title, said, shown, text=write, from_zero=kind is not ACCURACY)
    return draw(chart, (0.0, float(last)))


def over_delta(study: Row, rows: Sequence[Row], summary: Sequence[Row]) -> list[str]:
    """Final accuracy over δ, a line a family; what has no δ, and the model before training, lie level beside it."""
    by_arm = {row["arm"]: row for row in summary}
    lines = []
    for family in families(study):
        points = [_point(delta, by_arm[arm]) for delta, arm in family.members if arm in by_arm]
        dots = [(delta, row["final_accuracy"]) for delta, arm in family.members for row in ended(rows, arm)]
        lines.append(Line(family.objective, points, *paint(family.objective)[:2], marks=True, dots=dots))
    values = [point.x for line in lines for point in line.points]
    if not values:
        return []
    ends = (min(values), max(values))
    for arm, line in arm_lines(study).items():
        if arm in by_arm and "delta" not in _objective(study["arms"][arm]):
            lines.append(replace(line, points=[_point(x, by_arm[arm]) for x in ends], marks=False))
    before = mean(row["accuracy_before"] for row in rows if row.get("accuracy_before") is not None)
    lines.append(Line("before training", [Point(x, before, None, None) for x in ends], *OTHER[:2]))
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
    figures = []
    for key, members in setting_families(study["settings"]):
        lines = []
        for arm, line in arm_lines(study).items():
            points = [_point(value, by_place[name, arm]) for value, name in members if (name, arm) in by_place]
            dots = [
                (value, row["final_accuracy"])
                for value, name in members
                for row in ended([row for row in rows if row["setting"] == name], arm)
            ]
            lines.append(replace(line, points=points, marks=True, dots=dots))
        said = key.replace("_", " ")
        chart = Chart(f"Final accuracy against {said}", ESTIMATE, lines, x_label=said, from_zero=False)
        figures.append(draw(chart, Stops(value for value, _ in members)))
    return figures
