"""When a run has collapsed, and stopping there."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from drpo.cli import train as command
from drpo.collapse import has_collapsed
from drpo.errors import ConfigError
from drpo.intervals import wilson_interval
from drpo.lab.metrics import accuracy_metrics
from drpo.run_checkpoints import checkpoint_folders
from drpo.run_directory import RunDirectory
from drpo.train import loop
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.outcome import outcome
from drpo.train.resume import resumed_config

#: Held-out accuracies, the one before training first.
FALLEN = [0.4, 0.9, 0.9, 0.2, 0.2]


def intervals(accuracies: list[float], samples: int) -> list[Any]:
    return [wilson_interval(round(value * samples), samples) for value in accuracies]


@pytest.mark.parametrize(
    ("accuracies", "samples", "collapsed"),
    [
        (FALLEN, 512, True),
        (FALLEN[:4], 512, False),  # one low evaluation does not stay
        (FALLEN, 4, False),  # chance
        ([0.4, 0.9, 0.9, 0.5, 0.5], 512, False),  # not half
        ([0.0, 0.0, 0.0, 0.5], 512, False),  # a rise
        ([0.9, 0.1], 512, False),
        ([0.9, 0.1, 0.1], 512, True),
    ],
)
def test_a_collapse_is_a_fall_that_stays_and_is_no_chance(
    accuracies: list[float], samples: int, collapsed: bool
) -> None:
    assert has_collapsed(accuracies, intervals(accuracies, samples)) is collapsed
    curve = list(enumerate(accuracies))
    records = [
        {"step": step, "accuracy": value, "correct": round(value * samples), "samples": samples}
        for step, value in curve
    ]
    assert accuracy_metrics(curve, records)["collapsed"] is collapsed, "a study says the same"
    updates = [{"step": 1, "truncated_share": 0, "gradient_norm": 1, "shift_p99": 0.1, "shift_max": 1, "delta": 0.15}]
    found = outcome(records, updates, {"learning_rate": 1e-4, "updates_per_step": 2})
    assert found.collapsed is collapsed and ("collapsed" in found.sentence) is collapsed
    if collapsed:
        assert found.kind == "worse" and f"{max(accuracies):.3f} → {accuracies[-1]:.3f}" in found.sentence


@pytest.mark.parametrize("samples", [16, 64, 256])
def test_noise_hardly_ever_is_a_collapse(samples: int) -> None:
    """Of 60 runs of 40 evaluations at one true accuracy; without the intervals nearly all of some would be."""
    for share in (0.05, 0.1, 0.3):
        draw = random.Random(samples)
        alarms = falls = 0
        for _ in range(60):
            counts = [sum(draw.random() < share for _ in range(samples)) for _ in range(40)]
            accuracies = [count / samples for count in counts]
            bounds = [wilson_interval(count, samples) for count in counts]
            looks = range(3, 41)
            alarms += any(has_collapsed(accuracies[:look], bounds[:look]) for look in looks)
            falls += any(has_collapsed(accuracies[:look]) for look in looks)
        assert alarms <= 4, (samples, share, alarms)
        if samples == 16:
            assert falls > 50


#: Accuracies after each step of a run.
CURVE = dict(enumerate([0.4, 0.9, 0.9, 0.2, 0.2, 0.2, 0.2]))
SETTINGS = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=6",
    "eval_every=1",
    "checkpoint_every=9",
    "device=cpu",
    "stop_on_collapse=true",
]


@pytest.fixture
def _as_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real runs whose evaluations are given the accuracies of :data:`CURVE`, of 512 samples."""
    measure, evaluate, at = loop.evaluate, loop.Trainer.evaluate, [0]

    def remember(self: loop.Trainer) -> None:
        at[0] = self.progress.step
        evaluate(self)

    def planned(*arguments: Any, **named: Any) -> Any:
        record, samples = measure(*arguments, **named)
        accuracy = CURVE[at[0]]
        return record | {
            "accuracy": accuracy,
            "correct": round(512 * accuracy),
            "samples": 512,
            "avg_at_k": {},
        }, samples

    monkeypatch.setattr(loop.Trainer, "evaluate", remember)
    monkeypatch.setattr(loop, "evaluate", planned)


def configuration(copyist: Path, *changes: str) -> TrainConfig:
    return load_config(None, [f"model={copyist}", *SETTINGS, *changes])[0]


@pytest.mark.slow
@pytest.mark.usefixtures("_as_planned")
def test_a_run_stops_where_it_collapsed_wherever_it_was_killed(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RunDirectory(tmp_path / "whole")
    summary = train(configuration(copyist), whole)
    assert (summary.status, summary.step, summary.outcome.collapsed) == ("interrupted", 4, True)
    assert whole.read_manifest()["outcome"]["collapsed"] is True
    assert list(checkpoint_folders(whole.checkpoints)) == [1, 4]

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    for name in ("save", "summary"):  # before the last checkpoint, and once it was written
        part = RunDirectory(tmp_path / name)
        with monkeypatch.context() as patch:
            real = getattr(loop.Trainer, name)
            patch.setattr(
                loop.Trainer, name, lambda self, *a, real=real: die() if self.progress.step == 4 else real(self, *a)
            )
            with pytest.raises(Killed):
                train(configuration(copyist), part)
        again = train(resumed_config(part), part, resume=True)
        assert (again.status, again.step) == ("interrupted", 4)
        for folder in checkpoint_folders(whole.checkpoints).values():
            weights = part.checkpoints / folder.name / "model.safetensors"
            assert weights.read_bytes() == (folder / "model.safetensors").read_bytes()
    # Resumed without a change it stops at once; with one it goes on.
    assert train(resumed_config(whole), whole, resume=True).step == 4
    assert train(resumed_config(whole, ["stop_on_collapse=false"]), whole, resume=True).step == 6


@pytest.mark.slow
@pytest.mark.usefixtures("_as_planned")
def test_the_exit_status_is_3_and_the_way_on_is_named(
    copyist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"model={copyist}", *SETTINGS]
    with pytest.raises(SystemExit) as stop:
        command.run_train(settings, tmp_path / "run", None, None, False)
    said = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 3
    assert "Held-out accuracy collapsed from its best, after step 1, and stays below half of it: 0.900" in said
    assert f"drpo train --from {tmp_path / 'run'}:best" in said and "stop_on_collapse=false" in said
    shutil.rmtree(tmp_path / "run")
    command.run_train([*settings, "stop_on_collapse=false"], tmp_path / "run", None, None, False)
    assert "finished after step 6" in capsys.readouterr().out


def test_a_study_needs_every_evaluation(tmp_path: Path) -> None:
    from drpo.lab.plan import make_plan
    from drpo.lab.typed_study import typed_study

    _, study = typed_study(["drpo", "grpo"], ["stop_on_collapse=true"], 2)
    with pytest.raises(ConfigError, match="a comparison needs every evaluation"):
        make_plan(study)
