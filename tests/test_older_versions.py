"""Files of an earlier version are read, and gone on with; files of a newer one are refused by name, and left alone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drpo.errors import ConfigError, SchemaError
from drpo.inspection.inspect import inspect
from drpo.lab.directory import StudyDirectory
from drpo.lab.results import read_csv
from drpo.lab.run import read_results, run_study
from drpo.lab.runner import Watcher
from drpo.lab.study import Study, load_study
from drpo.lab.workers import LocalWorkers
from drpo.objectives import make_objective
from drpo.run_directory import RunDirectory
from drpo.schema import RENAMED_METRICS, SCHEMAS
from drpo.train.config import TrainConfig
from drpo.train.config_layers import layer_config
from drpo.train.loop import train
from drpo.train.observer import Summary
from drpo.train.resume import resumed_config

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parent / "fixtures" / "version_0_1"


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what drpo 0.1.0 left, as the working directory."""
    copy = shutil.copytree(FIXTURES, tmp_path / "older")
    monkeypatch.chdir(copy)
    return copy


def resume() -> Summary:
    return train(resumed_config(RunDirectory("run")), RunDirectory("run"), resume=True)


def numbers(file: Path) -> list[int]:
    return [json.loads(line).get("schema", 0) for line in file.read_text(encoding="utf-8").splitlines()]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_of_0_1_goes_on_though_settings_were_added(older: Path) -> None:
    before = yaml.safe_load((older / "run" / "config.yaml").read_text(encoding="utf-8"))
    added = TrainConfig().resolved().keys() - before
    assert {"threads", "trust_remote_code"} <= added, "the fixture no longer shows what it is for"
    assert not any(numbers(older / "run" / "metrics.jsonl"))
    summary = resume()
    run = RunDirectory("run")
    assert summary.status == "finished"
    assert sorted({record["step"] for record in run.read_metrics("update")}) == [1, 2, 3, 4, 5, 6]
    assert [record["step"] for record in run.read_metrics("evaluation")] == [0, 2, 4, 6]
    # The steps that were kept say what they said, and everything is written in this version's form from here on.
    assert set(numbers(run.metrics_file)) == {SCHEMAS["metrics"]}
    assert json.loads(run.manifest_file.read_text(encoding="utf-8"))["schema"] == SCHEMAS["manifest"]
    state = json.loads((run.checkpoints / "step-000006" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["schema"] == SCHEMAS["checkpoint"]
    original = RunDirectory(FIXTURES / "run").read_metrics("update")
    assert run.read_metrics("update")[: 2 * 2] == [record for record in original if record["step"] <= 2]
    assert sorted(run.read_rollouts("step")) == [1, 2, 3, 4, 5, 6]
    assert set(numbers(run.rollouts / "step-000001.jsonl")) == {0}
    assert set(numbers(run.rollouts / "step-000006.jsonl")) == {SCHEMAS["rollouts"]}
    found = inspect([run.path], None, ["drpo"])
    assert found.tokens > 0 and {step.step for step in found.steps} == {1, 2, 3, 4, 5, 6}


def test_metrics_of_0_1_have_their_present_names(older: Path) -> None:
    written = [json.loads(line) for line in (older / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    before = [record for record in written if record["kind"] == "update"]
    now = RunDirectory("run").read_metrics("update")
    assert len(now) == len(before) > 0
    for old, new in zip(before, now, strict=True):
        assert not RENAMED_METRICS.keys() & new.keys() and set(RENAMED_METRICS.values()) <= new.keys()
        assert new["diverging_share"] == old["harmful_share"] > 0
        assert new["masked_share_negative"] == old["dropped_share_negative"]
        assert new["others"]["ppo"] == {
            "corrective_share": old["others"]["ppo"]["corrective_share"],
            "masked_share": old["others"]["ppo"]["dropped_share"],
            "corrective_mass": old["others"]["ppo"]["corrective_mass"],
            "masked_mass": old["others"]["ppo"]["dropped_mass"],
        }


def test_a_table_of_schema_1_has_its_present_columns(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("schema,phase,setting,arm,seed,dropped_share\n1,shared,one,drpo,0,0.25\n", encoding="utf-8")
    assert read_csv(file) == [{"phase": "shared", "setting": "one", "arm": "drpo", "seed": 0, "masked_share": 0.25}]


def test_a_configuration_with_the_old_name_of_a_parameter_resumes(tmp_path: Path) -> None:
    values = {"name": "mask_drpo", "delta": 0.15, "harmful_only": True}
    config, _ = layer_config([("a file", {"objective": values})])
    assert config.resolved()["objective"]["diverging_only"] is True
    assert make_objective(**values) == make_objective("mask_drpo", delta=0.15, diverging_only=True)
    with pytest.raises(ConfigError, match=r"harmful_only.*diverging_only"):
        make_objective(**values, diverging_only=False)


def test_a_study_of_0_1_goes_on_and_keeps_what_had_finished(older: Path) -> None:
    kept = {name: content for name, content in snapshot(older / "study").items() if "seed-0" in name}
    name, study = load_study("study.yaml")
    assert name == "study"
    results, stopped = run_study(study, Path("study"), LocalWorkers.here(2), Watcher())
    assert not stopped and [row["status"] for row in results.rows] == ["finished"] * 4
    after = snapshot(older / "study")
    assert all(after[name] == content for name, content in kept.items()), "a run that had finished was touched"
    started = [entry["run"] for entry in StudyDirectory(Path("study")).journal() if entry["event"] == "started"]
    assert started.count("runs/one/drpo/seed-1") == 2 and started.count("runs/one/drpo/seed-0") == 1
    with Path("study/curves.csv").open(encoding="utf-8", newline="") as stream:
        curves = list(csv.DictReader(stream))
    assert {row["schema"] for row in curves} == {str(SCHEMAS["curves"])}
    assert len(curves) == 4 * 5  # runs × (steps and the evaluation before them)


def newer_json(file: Path) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, "schema": 99}), encoding="utf-8")


def newer_lines(file: Path) -> None:
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("".join(json.dumps({**line, "schema": 99}) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("manifest.json", newer_json),
        ("metrics.jsonl", newer_lines),
        ("checkpoints/step-000002/trainer_state.json", newer_json),
    ],
)
def test_a_run_of_a_newer_version_is_refused_and_left_alone(
    older: Path, file: str, change: Callable[[Path], None]
) -> None:
    change(older / "run" / file)
    before = snapshot(older / "run")
    with pytest.raises(SchemaError, match=rf"{file}.*newer version.* schema 99"):
        resume()
    assert snapshot(older / "run") == before | {".lock": b""} or snapshot(older / "run").keys() - before <= {".lock"}
    assert all(snapshot(older / "run")[name] == content for name, content in before.items())


def test_an_older_checkpoint_is_no_way_around_a_newer_one(older: Path) -> None:
    """A damaged checkpoint is passed over; one of a newer version is whole."""
    checkpoints = older / "run" / "checkpoints"
    newest = Path(shutil.copytree(checkpoints / "step-000002", checkpoints / "step-000004"))
    newer_json(newest / "trainer_state.json")
    with pytest.raises(SchemaError, match="step-000004"):
        resume()


@pytest.mark.parametrize(("folder", "read"), [("rollouts", "read_rollouts"), ("tokens", "token_files")])
def test_samples_and_tokens_of_a_newer_version_are_refused(older: Path, folder: str, read: str) -> None:
    newer_lines(older / "run" / folder / "step-000002.jsonl")
    method: Callable[..., Any] = getattr(RunDirectory("run"), read)
    with pytest.raises(SchemaError, match=rf"{folder}/step-000002.jsonl.*schema 99"):
        method(*(["step"] if read == "read_rollouts" else []))


@pytest.mark.parametrize("number", [-1, 1.5, "1", True, None, [1]])
def test_a_number_that_is_none_is_damage(older: Path, number: object) -> None:
    file = older / "run" / "manifest.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, "schema": number}), encoding="utf-8")
    with pytest.raises(ValueError, match="schema must be a whole number"):
        RunDirectory("run").read_manifest()


def study_of(older: Path) -> Study:
    return load_study(str(older / "study.yaml"))[1]


def test_files_of_a_study_of_a_newer_version_are_refused(older: Path) -> None:
    study, path = study_of(older), older / "study"
    values = yaml.safe_load((path / "study.yaml").read_text(encoding="utf-8"))
    for number, refused in ((1, False), (99, True)):
        (path / "study.yaml").write_text(yaml.safe_dump({**values, "schema": number}), encoding="utf-8")
        if refused:
            with pytest.raises(SchemaError, match=r"study.yaml.*schema 99"):
                StudyDirectory(path).create(study)
        else:
            StudyDirectory(path).create(study)
    newer_lines(path / "journal.jsonl")
    with pytest.raises(SchemaError, match=r"journal.jsonl, line 1 .*schema 99"):
        read_results(study, path)
