"""What `drpo eval` evaluates: a run's checkpoint on the run's own task."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from drpo.cli import main
from drpo.cli.evaluate import resolve_source
from drpo.cli.printing import PlainConsole
from drpo.errors import CheckpointError
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.loop import train

pytestmark = pytest.mark.slow

SETTINGS = [
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=2",
    "checkpoint_every=1",
    "eval_every=0",
    "eval_examples=3",
    "eval_samples=2",
    "device=cpu",
]


@pytest.fixture(scope="module")
def own(copyist: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run on a JSONL file of its own."""
    folder = tmp_path_factory.mktemp("own")
    data = folder / "pairs.jsonl"
    data.write_text("".join(f'{{"prompt": "{a}{b}", "answer": "{a}{b}"}}\n' for a in "abcd" for b in "abcd"))
    config, _ = load_config(None, [f"model={copyist}", "task=jsonl", f"task.path={data}", *SETTINGS])
    train(config, RunDirectory(folder / "run"))
    return RunDirectory(folder / "run")


def drpo(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["drpo", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


@pytest.mark.parametrize("copied", [False, True])
def test_a_checkpoint_of_a_run_is_evaluated_on_the_runs_own_task(
    own: RunDirectory, copied: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = own.checkpoints / "step-000001"
    if copied:
        checkpoint = shutil.copytree(checkpoint, own.checkpoints / "step-000001-best")
    assert drpo(["eval", str(checkpoint), "--json"], monkeypatch) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["task"] == "jsonl" and found["model"] == str(checkpoint) and found["samples"] <= 6
    assert "default task" not in printed.err


def test_a_relative_path_knows_its_run(own: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.checkpoints)
    config, model = resolve_source("step-000002", ["eval_samples=5"], PlainConsole(stderr=True))
    assert (config.task.name, config.eval_samples, model) == ("jsonl", 5, "step-000002")


def test_a_damaged_checkpoint_that_is_named_is_refused(own: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory(shutil.copytree(own.path, tmp_path / "run"))
    weights = run.checkpoints / "step-000001" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"step-000001 is damaged \(model\.safetensors has changed\)"):
        resolve_source(str(run.checkpoints / "step-000001"), [], PlainConsole(stderr=True))


def test_a_plain_model_says_that_it_is_asked_the_default_task(
    copyist: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eval_examples=2", "eval_samples=1", "max_new_tokens=2", "device=cpu"]
    assert drpo(["eval", "embedded:arithmetic", *given], monkeypatch) == 0
    assert "reasoning_gym:chain_sum, the default task" in capsys.readouterr().err
    assert drpo(["eval", str(copyist), "task=copy", "task.length=2", *given], monkeypatch) == 0
    assert "default task" not in capsys.readouterr().err
