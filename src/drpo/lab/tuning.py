"""Each arm's best try, by tuning seeds alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from drpo.files import json_text, read_json, replace_text
from drpo.lab.directory import StudyDirectory
from drpo.lab.metrics import METRICS
from drpo.lab.plan import Place, Plan, tries
from drpo.lab.results import Row
from drpo.lab.study import Study
from drpo.lab.surface import fitted
from drpo.run_schema import checked
from drpo.schema import check_schema, numbered

#: (setting, arm) → the name of its chosen try.
Choices = dict[Place, str]
#: Try → its scores over seeds; None for a run without one.
Scores = dict[str, list[float | None]]


class _Choice(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    setting: str
    arm: str
    chosen: str


class _Choices(BaseModel):
    choices: list[_Choice]


def choose(plan: Plan, rows: Sequence[Row]) -> tuple[Choices, list[Row]]:
    """For each setting and arm the try with the best mean of the study's metric, the first of equal ones; then a record
    for each, with every try's scores. Where the tuning has a second round, its fresh seeds alone decide.

    A run that failed before it was evaluated counts as the worst there is.
    """
    better = _sign(plan)
    choices: Choices = {}
    records: list[Row] = []
    for place, scores in _scores(plan, rows).items():
        second = _second_round(plan, rows, place)
        deciding = second or scores
        choices[place] = max(deciding, key=lambda attempt: better * _mean(deciding[attempt], -better * math.inf))
        records.append(
            {
                "setting": place[0],
                "arm": place[1],
                "chosen": choices[place],
                "metric": plan.study.metric,
                "scores": scores,
                **({"confirmed": second} if second else {}),
            }
        )
    return choices, records


def finalists(plan: Plan, rows: Sequence[Row]) -> dict[Place, list[str]]:
    """The tries of the tuning's second round, the best by a surface fitted to the means of the first; none for an arm
    whose runs of the first are missing."""
    confirm = plan.study.tuning.confirm if plan.study.tuning else None
    if plan.study.tuning is None or confirm is None:
        return {}
    first = [row for row in rows if row["phase"] == "tuning" and row["seed"] in plan.study.tuning.seeds]
    left = {(row["setting"], row["arm"]) for row in first if row["status"] not in ("finished", "failed")}
    better = _sign(plan)
    found = {}
    for place, scores in _scores(plan, first).items():
        if place in left:
            continue
        keys = {one.name: one.keys for one in tries(plan.study, place[1])}
        known = {name: _mean(values, math.nan) for name, values in scores.items()}
        known = {name: value for name, value in known.items() if math.isfinite(value)}
        surface = dict(zip(known, fitted([keys[name] for name in known], list(known.values())), strict=True))
        found[place] = sorted(surface, key=lambda name: -better * surface[name])[: confirm.best]
    return found


def _sign(plan: Plan) -> float:
    return 1.0 if METRICS[plan.study.metric].more_is_better else -1.0


def _scores(plan: Plan, rows: Sequence[Row], seeds: Sequence[int] | None = None) -> dict[Place, Scores]:
    """(setting, arm) → try → scores of the tuning's first round, or of other ``seeds``."""
    assert plan.study.tuning is not None
    wanted = plan.study.tuning.seeds if seeds is None else seeds
    found: dict[Place, Scores] = {}
    for row in rows:
        if row["phase"] == "tuning" and row["seed"] in wanted:
            place = found.setdefault((row["setting"], row["arm"]), {})
            place.setdefault(row["attempt"], []).append(row.get(plan.study.metric))
    return found


def _second_round(plan: Plan, rows: Sequence[Row], place: Place) -> Scores:
    assert plan.study.tuning is not None
    confirm = plan.study.tuning.confirm
    return _scores(plan, rows, confirm.seeds).get(place, {}) if confirm else {}


def _mean(scores: Sequence[float | None], worst: float) -> float:
    return math.fsum(worst if score is None else score for score in scores) / len(scores)


def edges(study: Study, arm: str, choice: str) -> list[str]:
    """Where a choice is at the edge of an arm's grid, so that a better value may lie beyond: in words, one for each
    key; none for no choice."""
    grid = {one.name: one.keys for one in tries(study, arm)}
    found = []
    for key, value in grid.get(choice, {}).items():
        values = sorted(keys[key] for keys in grid.values() if isinstance(keys[key], int | float))
        if values and values[0] < values[-1] and value in (values[0], values[-1]):
            end = "lowest" if value == values[0] else "highest"
            found.append(f"{end} {key.rsplit('.', 1)[-1].replace('_', ' ')} ({value:g})")
    return found


def write_choices(directory: StudyDirectory, records: Sequence[Row]) -> None:
    """Write choices.json; what it holds of other settings stays."""
    settings = {record["setting"] for record in records}
    kept = [record for record in _records(directory) if record["setting"] not in settings]
    with directory.writing():
        text = json_text(numbered("choices", {"choices": [*kept, *records]}))
        replace_text(directory.choices_file, text)


def read_choices(directory: StudyDirectory) -> Choices:
    """What choices.json says; empty if nothing was chosen yet."""
    return {(record["setting"], record["arm"]): record["chosen"] for record in _records(directory)}


def _records(directory: StudyDirectory) -> list[Row]:
    file = directory.choices_file
    if not file.is_file():
        return []
    found = read_json(file)
    if isinstance(found, list):  # schema 0
        found = {"choices": found}
    check_schema("choices", found, str(file))
    fix = " Remove it, and the tuning chooses again."
    return checked(_Choices, found, str(file), fix).model_dump()["choices"]
