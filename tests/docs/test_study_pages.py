"""The records behind docs/studies.md: the tables hold every run that was planned, and verdicts follow from them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drpo.lab.plan import make_plan
from drpo.lab.run import plain_verdicts
from drpo.lab.study import load_study
from drpo.lab.tables import markdown
from drpo.lab.tuning import finalists
from drpo.train.config_layers import load_config
from tools import RESULTS
from tools.docs.study_pages import STUDIES, load, ran

#: Studies hold δ = 12.5 on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning")
#: Fewest evaluation seeds of a committed study.
SEEDS = 5


def test_the_studies_that_answer_the_question_are_committed() -> None:
    assert {"settle", "delta", "mask", "advantage-weight", "staleness", "activation", "divergence"} <= set(STUDIES)


def test_the_question_is_answered_for_dense_and_mixture_and_fp8() -> None:
    """Of every arm, at the shared rate and at its best."""
    study, rows, _ = load("settle")
    for phase in ("shared", "best"):
        assert ran(study, rows, phase) == ["dense", "moe", "moe-fp8-rollout"]


@pytest.mark.parametrize("name", STUDIES)
def test_every_planned_run_is_in_the_table(name: str) -> None:
    """Once, whatever became of it; what was not run is missing there and said to be."""
    study, rows, _ = load(name)
    plan = make_plan(study)

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[part] for part in ("phase", "setting", "arm", "attempt", "seed"))

    runs = [*plan.tuning, *plan.confirming(finalists(plan, rows)), *plan.shared]
    planned = [(run.phase, run.setting, run.arm, run.attempt, run.seed) for run in runs]
    assert sorted(map(key, (row for row in rows if row["phase"] != "best"))) == sorted(planned)
    assert {row["status"] for row in rows} <= {"finished", "failed", "missing", "skipped"}
    for setting in ran(study, rows):
        statuses = [row["status"] for row in rows if row["setting"] == setting]
        assert set(statuses) <= {"finished", "failed", "skipped"}
    assert ran(study, rows), "no setting is complete"


@pytest.mark.parametrize("name", STUDIES)
def test_the_study_is_the_one_that_is_shipped(name: str) -> None:
    study, _, _ = load(name)
    _, shipped = load_study(f"recipe:studies/{name}")
    assert study.model_dump(exclude={"scales"}) == shipped.model_dump(exclude={"scales"})
    assert len(study.seeds) >= SEEDS
    assert not study.tuning or not set(study.tuning.seeds) & set(study.seeds)


@pytest.mark.parametrize("name", STUDIES)
def test_verdicts_and_tables_follow_from_the_rows(name: str) -> None:
    study, rows, verdicts = load(name)
    folder = RESULTS / name
    kept = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))["verdicts"]
    assert rounded(kept) == rounded(plain_verdicts(verdicts))
    assert (folder / "results.md").read_text(encoding="utf-8") == markdown(study, rows, verdicts)


def rounded(value: Any) -> Any:
    """To 12 digits: from Python 3.12 on ``sum`` of floats has another last bit than before."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


@pytest.mark.parametrize("name", [name for name in STUDIES if load(name)[0].tuning])
def test_the_best_runs_are_those_that_the_tuning_chose(name: str) -> None:
    """By the mean of the tuning seeds alone, or of those of its second round where there is one, of the configuration
    that the choice names."""
    study, rows, _ = load(name)
    choices = json.loads((RESULTS / name / "choices.json").read_text(encoding="utf-8"))["choices"]
    assert choices
    for record in choices:
        place = record["setting"], record["arm"]
        scores: dict[str, list[float]] = {}
        for row in rows:
            if row["phase"] == "tuning" and (row["setting"], row["arm"]) == place:
                scores.setdefault(row["attempt"], []).append(row[study.metric])
        deciding = record.get("confirmed") or record["scores"]
        assert {name: scores[name][-len(kept) :] for name, kept in deciding.items()} == deciding
        assert sum(deciding[record["chosen"]]) == max(map(sum, deciding.values()))
        rate = float(record["chosen"].split(",")[0].removeprefix("learning_rate="))
        for row in rows:
            if row["phase"] == "best" and (row["setting"], row["arm"]) == place:
                assert load_config(None, row["command"].split(" --out")[0].split()[2:])[0].learning_rate == rate
