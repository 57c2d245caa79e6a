"""What reaches a tracker, and what a tracker that fails may do to a run: nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, ClassVar

import pytest

import drpo.trackers
from drpo.errors import ConfigError, TrackingError, WriteError
from drpo.run_directory import RunDirectory
from drpo.trackers import TRACKERS, Response, TrackedRun, flat_scalars, make_trackers, updates_done
from drpo.train import loop, setup
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.observer import Observer
from drpo.train.tracking import Tracking
from drpo.train.update import OTHERS
from support import mixtures
from support.notes import Notes

pytestmark = pytest.mark.slow

SMALL = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=2",
    "eval_every=0",
    "eval_examples=2",
    "eval_samples=2",
    "device=cpu",
]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "tracking.md"


class Fake:
    """A tracker that keeps what it is told, and raises where told to."""

    made: ClassVar[list[Fake]]
    fails_at: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.ended: list[str] = []
        self.tables: list[tuple[int, list[Response]]] = []
        self.alerts: list[tuple[int, str, str]] = []
        self.reports: list[Path] = []
        type(self).made.append(self)

    def start(self, run: TrackedRun) -> str:
        self.run = run
        (run.directory / "fake").mkdir(parents=True, exist_ok=True)
        self.fail("start")
        return "here"

    def log(self, step: int, scalars: dict[str, float], responses: Sequence[Response] = ()) -> None:
        self.fail(f"log {step}")
        self.rows.append((step, scalars))
        if responses:
            self.tables.append((step, list(responses)))

    def alert(self, step: int, title: str, text: str) -> None:
        self.fail("alert")
        self.alerts.append((step, title, text))

    def keep(self, report: Path) -> None:
        assert not self.ended and report.is_file()
        self.reports.append(report)

    def finish(self, status: str) -> None:
        self.ended.append(status)
        self.fail("finish")

    def fail(self, where: str) -> None:
        if where in self.fails_at:
            raise OSError(f"no network at {where}")


class _NoPackage(Fake):
    made: ClassVar[list[Fake]] = []


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> tuple[type[Fake], type[Fake]]:
    """The classes behind the names "fake" and "other"."""

    class One(Fake):
        made: ClassVar[list[Fake]] = []

    class Two(Fake):
        made: ClassVar[list[Fake]] = []

    monkeypatch.setitem(TRACKERS, "fake", One)
    monkeypatch.setitem(TRACKERS, "other", Two)
    monkeypatch.setattr(drpo.trackers, "distribution", lambda name: None)
    return One, Two


def configuration(copyist: Path, *changes: str) -> TrainConfig:
    return load_config(None, [f"model={copyist}", *SMALL, "trackers=[fake,other]", *changes])[0]


def notes_of(observer: Notes, name: str) -> list[str]:
    return [note for note in observer.notes if note.startswith(name)]


def test_every_record_reaches_every_tracker(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    run, observer = RunDirectory(tmp_path / "run"), Notes()
    train(configuration(copyist), run, observer)
    records = run.read_metrics()
    for kind in fakes:
        (tracker,) = kind.made
        assert [step for step, _ in tracker.rows] == [0, 1, 2, 3, 4, 4]
        assert [row for _, row in tracker.rows] == [flat_scalars(record) for record in records]
        assert tracker.ended == ["finished"]
        assert tracker.run.config == run.read_config()
        assert tracker.run.id == run.read_manifest()["run_id"]
        assert (tracker.run.project, tracker.run.resumed, tracker.run.first) == ("drpo", False, 0)
    assert notes_of(observer, "fake: ") == ["fake: here"]


def test_each_evaluation_has_a_table_of_responses(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    """The first sample of each held-out prompt, as the rollouts have it."""
    run = RunDirectory(tmp_path / "run")
    train(configuration(copyist), run)
    (tracker,) = fakes[0].made
    assert [step for step, _ in tracker.tables] == [0, 4]
    kept = run.read_rollouts("evaluation")[2]
    firsts = {record["prompt"]: record for record in reversed(kept)}
    assert [(prompt, text) for prompt, _, text, _, _ in tracker.tables[1][1]] == [
        (prompt, firsts[prompt]["text"]) for prompt in dict.fromkeys(record["prompt"] for record in kept)
    ]


def test_the_report_is_kept_before_the_tracker_closes(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    class Writing(Notes):
        def on_end(self, status: str) -> None:
            run.write_report("the report")

    run = RunDirectory(tmp_path / "run")
    train(configuration(copyist), run, Writing())
    assert [tracker.reports for kind in fakes for tracker in kind.made] == [[run.report_file]] * 2


def test_trackers_close_also_where_the_report_cannot_be_written(tmp_path: Path) -> None:
    class Full(Observer):
        def on_end(self, status: str) -> None:
            raise WriteError("the disk is full")

    tracker = _NoPackage()
    with pytest.raises(WriteError):
        Tracking(Full(), {"fake": tracker}, RunDirectory(tmp_path), updates_per_step=1).on_end("finished")
    assert tracker.ended == ["finished"]


def test_warnings_and_a_far_policy_raise_alerts(tmp_path: Path) -> None:
    """Three steps in a row beyond δ are one alert; a step inside begins the count again."""
    tracker, notes = _NoPackage(), Notes()
    tracking = Tracking(notes, {"fake": tracker}, RunDirectory(tmp_path), updates_per_step=1)
    for step, far in enumerate([0.2, 0.2, 0.1, 0.2, 0.2, 0.2, 0.2], start=1):
        tracking.on_step([{"kind": "update", "step": step, "update": 0, "shift_p99": far, "delta": 0.15}])
    ((step, title, text),) = tracker.alerts
    assert (step, title) == (6, "The policy moves too far") and "learning_rate" in text
    tracking.on_warning("no group's rewards vary")
    assert tracker.alerts[1:] == [(7, "Warning", "no group's rewards vary")]
    assert notes.notes == ["no group's rewards vary"]


def test_a_run_that_got_worse_or_failed_raises_an_alert(tmp_path: Path) -> None:
    for status, manifest, title in (
        ("finished", {"outcome": {"kind": "worse", "sentence": "It fell.", "try_next": "Try less."}}, "got worse"),
        ("failed", {"failure": "out of memory"}, "failed"),
        ("finished", {"outcome": {"kind": "improved", "sentence": "It rose."}}, None),
    ):
        run, tracker = RunDirectory(tmp_path / status), _NoPackage()
        run.create({}, {"status": status, **manifest})
        Tracking(Notes(), {"fake": tracker}, run, updates_per_step=1).on_end(status)
        assert [said for _, said, _ in tracker.alerts if title is None or title not in said] == []
        assert len(tracker.alerts) == (title is not None)
        assert tracker.ended == [status]


def test_a_resumed_run_keeps_its_identity(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    run = RunDirectory(tmp_path / "run")
    train(configuration(copyist), run)
    train(configuration(copyist, "steps=3"), run, resume=True)
    first, second = fakes[0].made
    assert second.run.id == first.run.id and second.run.name == first.run.name == f"run-{first.run.id}"
    assert second.run.resumed and second.run.first == 5
    assert [step for step, _ in second.rows] == [5, 6, 6]


def test_a_run_resumed_without_a_checkpoint_begins_again(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    run = RunDirectory(tmp_path / "run")
    train(configuration(copyist), run)
    for checkpoint in run.checkpoints.iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    run.write_manifest({**run.read_manifest(), "status": "running"})  # killed before its first checkpoint
    train(configuration(copyist), run, resume=True)
    again = fakes[0].made[1]
    assert again.run.first == 0 and [step for step, _ in again.rows] == [0, 1, 2, 3, 4, 4]


def test_runs_of_one_name_are_told_apart(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    for parent in ("a", "b"):
        train(configuration(copyist), RunDirectory(tmp_path / parent / "run"))
    first, second = fakes[0].made
    assert first.run.name != second.run.name


def test_a_tracker_that_fails_is_named_once_and_training_goes_on(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    run, observer = RunDirectory(tmp_path / "run"), Notes()
    fakes[0].fails_at = ("log 2", "log 3", "finish")
    assert train(configuration(copyist), run, observer).status == "finished"
    (failed,), (whole,) = fakes[0].made, fakes[1].made
    assert [step for step, _ in failed.rows] == [0, 1] and failed.ended == []
    assert [step for step, _ in whole.rows] == [0, 1, 2, 3, 4, 4] and whole.ended == ["finished"]
    (note,) = notes_of(observer, "fake failed")
    assert "OSError: no network at log 2" in note
    assert len(run.read_metrics()) == 6


def test_a_tracker_that_cannot_close_is_named(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    run, observer = RunDirectory(tmp_path / "run"), Notes()
    fakes[0].fails_at = ("finish",)
    assert train(configuration(copyist), run, observer).status == "finished"
    assert len(notes_of(observer, "fake failed")) == 1
    assert run.read_manifest()["status"] == "finished" and fakes[1].made[0].ended == ["finished"]


def test_a_tracker_that_cannot_start_stops_the_run(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    run = RunDirectory(tmp_path / "run")
    fakes[1].fails_at = ("start",)
    with pytest.raises(TrackingError, match=r"other cannot start: OSError: no network at start\n.* leave other out"):
        train(configuration(copyist), run)
    assert fakes[0].made[0].ended == ["failed"] and fakes[1].made[0].ended == []
    assert not run.path.exists()


def test_what_was_in_the_directory_before_stays(copyist: Path, tmp_path: Path, fakes: Any) -> None:
    run = RunDirectory(tmp_path / "run")
    (run.path / "other").mkdir(parents=True)
    (run.path / "other" / "mine").touch()
    fakes[1].fails_at = ("start",)
    with pytest.raises(TrackingError):
        train(configuration(copyist), run)
    assert sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*")) == ["other", "other/mine"]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")])
def test_trackers_learn_how_a_run_ended(
    copyist: Path, tmp_path: Path, fakes: Any, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], status: str
) -> None:
    def stop(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(loop, "update_policy", stop)
    with pytest.raises(error):
        train(configuration(copyist), RunDirectory(tmp_path / "run"))
    assert fakes[0].made[0].ended == [status]


def test_a_missing_package_is_told_before_the_run_starts(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(drpo.trackers, "distribution", absent)
    monkeypatch.setattr(setup, "load_policy", lambda *_: pytest.fail("a model was loaded"))
    config = load_config(None, [f"model={copyist}", *SMALL, "trackers=[wandb,trackio]"])[0]
    with pytest.raises(ConfigError, match=r"wandb, trackio not installed here. .*pip install -e '\.\[track\]'"):
        train(config, RunDirectory(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_that_name_is_no_package(tmp_path: Path) -> None:
    """wandb itself makes ./wandb."""
    (tmp_path / "wandb").mkdir()
    code = (
        "import sys; from drpo.trackers import _installed; sys.path[:] = ['']; import wandb; print(_installed('wandb'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["trackers=[tensorbord]"], r"trackers: unknown tracker 'tensorbord'. Did you mean 'tensorboard'\? Known: "),
        (["trackers=wandb,trackio"], r"unknown tracker 'wandb,trackio'"),
        (["trackers=[wandb,wandb]"], "trackers: a tracker is named twice"),
        (["trackers=3"], "trackers: input should be a valid list"),
        (["project=mine"], "project='mine' would be ignored"),
        (["project=mine", "trackers=tensorboard"], "project='mine' would be ignored"),
    ],
)
def test_what_the_configuration_refuses(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


def test_one_name_is_a_list_of_one() -> None:
    config, sources = load_config(None, ["trackers=wandb", "project=mine"])
    assert (config.trackers, config.project, sources["trackers"]) == (["wandb"], "mine", "command line")
    assert make_trackers([]) == {}


def test_figures_that_do_not_exist_are_left_out() -> None:
    record = {
        "kind": "update",
        "step": 3,
        "update": 1,
        "loss": float("nan"),
        "reward": 1,
        "entropy": None,
        "timing": {"sampling": 0.5, "grading": float("inf")},
        "histograms": {"shift": [1, 2]},
    }
    assert flat_scalars(record) == {"train/step": 3.0, "train/reward": 1.0, "timing/sampling": 0.5}
    assert updates_done(record, 4) == 10
    evaluation = {"kind": "evaluation", "step": 3, "accuracy": 0.5, "timing": {"seconds": 2.0}}
    assert flat_scalars(evaluation) == {
        "evaluation/step": 3.0,
        "evaluation/accuracy": 0.5,
        "evaluation/timing/seconds": 2.0,
    }
    assert updates_done(evaluation, 4) == 12


def test_training_imports_no_tracker() -> None:
    code = "import sys, drpo.train.loop; print({'wandb', 'trackio', 'tensorboard'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_page_names_every_figure(tmp_path: Path, fakes: Any) -> None:
    run = RunDirectory(tmp_path / "run")
    train(configuration(mixtures.save(tmp_path / "model")), run)  # which has more figures than a dense model
    existing = [_with_zeros(record) for record in run.read_metrics()]  # whether or not this small run has them all
    logged = {name for record in existing for name in flat_scalars(record)}
    table = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {
        name.replace("OBJECTIVE", objective).replace("/K/", f"/{k}/")
        for row in table
        for name in re.findall(r"`([^`]+)`", row)
        for objective in OTHERS
        for k in (1, 2)
    }
    assert documented == logged


def _with_zeros(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _with_zeros(value) if isinstance(value, dict) else 0.0 if value is None else value
        for key, value in record.items()
    }
