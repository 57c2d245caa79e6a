"""The best checkpoint: kept beside the newest, the same after a kill, and what `--step` means."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from drpo.cli import main
from drpo.errors import CheckpointError, ConfigError
from drpo.report import write_report
from drpo.run_checkpoints import best_checkpoint, checkpoint_folders
from drpo.run_directory import RunDirectory
from drpo.train import loop
from drpo.train.checkpoint_choice import choose_checkpoint
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.resume import resumed_config

pytestmark = pytest.mark.slow

SETTINGS = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "eval_examples=4",
    "eval_samples=2",
    "device=cpu",
]
#: Measured accuracy after each step of a run that rises and falls.
CURVE = {0: 0.2, 1: 0.3, 2: 0.4, 3: 0.9, 4: 0.9, 5: 0.4, 6: 0.3, 7: 0.2, 8: 0.1, 9: 0.95, 10: 0.5}


def configuration(copyist: Path, *changes: str) -> TrainConfig:
    grid = ["steps=8", "eval_every=1", "checkpoint_every=2"]
    return load_config(None, [f"model={copyist}", *SETTINGS, *grid, *changes])[0]


@pytest.fixture(scope="module")
def module_patch() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def _measured_as_planned(module_patch: pytest.MonkeyPatch) -> None:
    """Real runs whose evaluations, real too, are given the accuracies of :data:`CURVE`."""
    evaluate = loop.Trainer.evaluate
    measure = loop.evaluate
    step = [0]

    def remember(self: loop.Trainer) -> None:
        step[0] = self.progress.step
        evaluate(self)

    def planned(*arguments: Any, **named: Any) -> Any:
        record, samples = measure(*arguments, **named)
        return record | {"accuracy": CURVE[step[0]]}, samples

    module_patch.setattr(loop.Trainer, "evaluate", remember)
    module_patch.setattr(loop, "evaluate", planned)


@pytest.fixture(scope="module")
def risen(copyist: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("risen") / "run")
    train(configuration(copyist), run)
    return run


@pytest.fixture
def copy(risen: RunDirectory, tmp_path: Path) -> RunDirectory:
    return RunDirectory(shutil.copytree(risen.path, tmp_path / "run"))


def held(run: RunDirectory) -> list[int]:
    return list(checkpoint_folders(run.checkpoints))


def contents(run: RunDirectory) -> dict[str, bytes]:
    return {str(file.relative_to(run.path)): file.read_bytes() for file in run.checkpoints.rglob("*.*")}


def test_the_best_is_saved_where_it_is_measured_and_kept_beside_the_newest(risen: RunDirectory) -> None:
    """Step 3 is on no grid of checkpoints, and step 4 is no better."""
    assert held(risen) == [3, 6, 8]
    best = best_checkpoint(risen)
    assert best is not None and best["step"] == 3


def test_the_number_kept_is_a_setting_that_a_resumed_run_may_change(copy: RunDirectory) -> None:
    train(resumed_config(copy, ["steps=10", "checkpoint_keep=1"]), copy, resume=True)
    assert held(copy) == [9, 10], "9 is the best now"


class Killed(BaseException):
    """Stands for SIGKILL: no clean-up runs."""


@pytest.mark.parametrize(
    ("name", "count"),
    [("save_checkpoint", 3), ("save_checkpoint", 6), ("remove_old_checkpoints", 5), ("evaluate", 4)],
)
def test_a_killed_run_ends_with_the_same_checkpoints(
    risen: RunDirectory, copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    """Killed before the checkpoint of the best or of the last step is written, before old ones are removed, or once the
    best was measured."""
    real, calls = getattr(loop, name), [0]

    def die(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == count:
            raise Killed
        return real(*arguments, **named)

    run = RunDirectory(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, name, die)
        with pytest.raises(Killed):
            train(configuration(copyist), run)
    train(configuration(copyist), run, resume=True)
    assert contents(run) == contents(risen)


def test_which_checkpoint_step_means(risen: RunDirectory) -> None:
    notes: list[str] = []
    for which, step in (("last", 8), ("best", 3), ("6", 6), ("000006", 6)):
        assert choose_checkpoint(risen, which, notes.append) == risen.checkpoints / f"step-{step:06d}"
    assert notes == []
    for which in ("first", "-1", "3.5", "", "٣"):
        with pytest.raises(ConfigError, match=r"give best, last or a number.*3 \(0\.900\), 6 \(0\.300\), 8 \(0\.100\)"):
            choose_checkpoint(risen, which, notes.append)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5.*3 \(0\.900\)"):
        choose_checkpoint(risen, "5", notes.append)


def test_a_damaged_best_is_never_the_best(copy: RunDirectory) -> None:
    notes: list[str] = []
    weights = copy.checkpoints / "step-000003" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert choose_checkpoint(copy, "best", notes.append) == copy.checkpoints / "step-000006"
    assert "step-000003 is damaged" in notes[0] and "after step 1" not in notes[1]
    with pytest.raises(CheckpointError, match=r"step-000003 is damaged \(model.safetensors has changed\)"):
        choose_checkpoint(copy, "3", notes.append)
    for step in (6, 8):
        (copy.checkpoints / f"step-{step:06d}" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no whole checkpoint of a step that was evaluated.*--step last"):
        choose_checkpoint(copy, "best", notes.append)


def test_a_run_of_an_older_version_has_the_best_of_what_it_kept(copy: RunDirectory) -> None:
    """It kept the newest two only; once it goes on, the best of those and of what comes is kept."""
    shutil.rmtree(copy.checkpoints / "step-000003")
    notes: list[str] = []
    assert choose_checkpoint(copy, "best", notes.append) == copy.checkpoints / "step-000006"
    assert notes == ["step 6 is the best checkpoint, with 0.300; after step 3, which has no checkpoint, it was 0.900"]
    train(resumed_config(copy, ["steps=10"]), copy, resume=True)
    assert held(copy) == [9, 10]


def test_without_an_evaluation_there_is_no_best(copyist: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    asked: list[int] = []
    config = configuration(copyist, "eval_every=0")
    train(config, run, stop_requested=lambda: asked.append(1) or len(asked) == 2)
    assert held(run) == [2] and best_checkpoint(run) is None
    with pytest.raises(CheckpointError, match=r"none is known as the best.*--step last.*eval_every.*: 2\."):
        choose_checkpoint(run, "best", print)
    assert choose_checkpoint(run, "last", print).name == "step-000002"


def drpo(arguments: list[object], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["drpo", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_eval_and_export_take_the_step_that_is_asked_for(
    risen: RunDirectory, copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for which, step in (("best", 3), ("last", 8), ("6", 6)):
        assert drpo(["eval", risen.path, "--step", which, "--json"], monkeypatch) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["model"] == str(risen.checkpoints / f"step-{step:06d}") and found["task"] == "copy"
    assert drpo(["export", risen.path, "--step", "best", "--out", tmp_path / "model"], monkeypatch) == 0
    assert "step-000003" in capsys.readouterr().out
    kept, newest = (risen.checkpoints / f"step-{step:06d}" for step in (3, 8))
    exported, best, last = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", kept, newest))
    assert all(torch.equal(weight, best[name]) for name, weight in exported.items())
    assert not all(torch.equal(weight, last[name]) for name, weight in exported.items())
    for source in (copyist, kept):
        assert drpo(["eval", source, "--step", "best"], monkeypatch) == 2
        assert "--step best chooses one of a run's checkpoints" in capsys.readouterr().err


def test_report_and_terminal_name_the_best(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    assert drpo(["train", f"model={copyist}", *SETTINGS, "steps=6", "eval_every=3", "--out", out], monkeypatch) == 0
    assert "best    step 3, held-out accuracy 0.900 (--step best)" in capsys.readouterr().out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<dt>best checkpoint</dt><dd>step 3, held-out 90 % (<code>--step best</code>)</dd>" in page
    shutil.rmtree(out / "checkpoints")
    write_report(RunDirectory(out))
    assert "<dt>best checkpoint</dt><dd>–</dd>" in (out / "report.html").read_text(encoding="utf-8")
