"""Branches: a run of its own that goes on from another's checkpoint."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import CheckpointError, ConfigError
from drpo.report import write_report
from drpo.run_checkpoints import best_checkpoint, checkpoint_folders
from drpo.run_directory import RunDirectory
from drpo.train import loop
from drpo.train.branch import Branch, make_branch
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.observer import Summary
from drpo.train.resume import resumed_config
from support import command
from support.notes import Notes

pytestmark = pytest.mark.slow

SETTINGS = [
    "task=copy",
    "task.length=2",
    "steps=6",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "learning_rate=1e-3",
    "warmup_updates=3",
    "max_new_tokens=4",
    "eval_every=2",
    "eval_examples=4",
    "checkpoint_every=2",
    "checkpoint_keep=9",
    "log_tokens=true",
    "device=cpu",
]


def start(path: Path, model: Path, *overrides: str) -> RunDirectory:
    config, _ = load_config(None, [f"model={model}", *SETTINGS, *overrides])
    train(config, RunDirectory(path))
    return RunDirectory(path)


def grow(branch: Branch, path: Path, **options: Any) -> tuple[Summary, RunDirectory, list[str]]:
    observer = Notes()
    run = RunDirectory(path)
    return train(branch.config, run, observer, branch=branch, **options), run, observer.notes


def branch_of(origin: object, *overrides: str) -> Branch:
    return make_branch(str(origin), overrides, lambda text: None)


@pytest.fixture(scope="module")
def parent(copyist: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Six steps, with every checkpoint."""
    return start(tmp_path_factory.mktemp("parent") / "run", copyist)


def records(run: RunDirectory, after: int) -> list[dict[str, Any]]:
    found = [record for record in run.read_metrics() if record["step"] > after]
    return [{key: value for key, value in record.items() if key != "timing"} for record in found]


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def same_from(run: RunDirectory, parent: RunDirectory, step: int) -> None:
    """Bit for bit: metrics, responses, tokens, weights, optimizer and generators."""
    assert records(run, step) == records(parent, step)
    assert run.read_rollouts("step") == {at: kept for at, kept in parent.read_rollouts("step").items() if at > step}
    for file in run.token_files():
        assert file.read_bytes() == (parent.tokens / file.name).read_bytes()
    for at, folder in checkpoint_folders(run.checkpoints).items():
        theirs = parent.checkpoints / folder.name
        assert contents(folder) == contents(theirs), at
    assert step in checkpoint_folders(run.checkpoints) and 6 in checkpoint_folders(run.checkpoints)


def test_a_branch_without_a_change_is_its_parent_bit_for_bit(parent: RunDirectory, tmp_path: Path) -> None:
    before = contents(parent.path)
    summary, run, notes = grow(branch_of(f"{parent.path}:2"), tmp_path / "branch")
    assert (summary.status, summary.step) == ("finished", 6)
    same_from(run, parent, 2)
    assert notes[0] == f"a branch of {parent.path}, which goes on after its step 2"
    assert any(note.startswith("before training |log π − log μ| is") for note in notes), "the start check runs again"
    assert [record["step"] for record in run.read_metrics("evaluation")] == [2, 4, 6]
    told = run.read_manifest()["parent"]
    run_id = parent.read_manifest()["run_id"]
    assert told == {"path": str(parent.path), "run_id": run_id, "step": 2, "changes": []}
    assert run.gaps() == [] and contents(parent.path) == before


def test_a_branch_with_older_weights_too(copyist: Path, tmp_path: Path) -> None:
    lagging = start(tmp_path / "parent", copyist, "rollout_lag=2")
    _, run, _ = grow(branch_of(f"{lagging.path}:4"), tmp_path / "branch")
    same_from(run, lagging, 4)
    assert run.read_metrics("update")[0]["lag"] == 2


@pytest.mark.parametrize(("name", "count"), [("Trainer", 1), ("evaluate", 1), ("save_checkpoint", 1)])
def test_a_killed_branch_resumes_from_itself_alone(
    parent: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    """Killed before or within its first evaluation, and before its first own checkpoint; its parent is gone then."""

    class Killed(BaseException):
        pass

    def die(*arguments: Any, **named: Any) -> Any:
        raise Killed

    other = RunDirectory(shutil.copytree(parent.path, tmp_path / "parent"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, name, die)
        with pytest.raises(Killed):
            grow(branch_of(f"{other.path}:2"), tmp_path / "branch")
    shutil.rmtree(other.path)
    run = RunDirectory(tmp_path / "branch")
    assert train(resumed_config(run), run, resume=True).step == 6
    same_from(run, parent, 2)
    assert [record["step"] for record in run.read_metrics("evaluation")] == [2, 4, 6]


def test_a_branch_that_lost_its_checkpoints_does_not_start_from_the_base(parent: RunDirectory, tmp_path: Path) -> None:
    _, run, _ = grow(branch_of(f"{parent.path}:4"), tmp_path / "branch")
    shutil.rmtree(run.checkpoints)
    run.write_manifest(run.read_manifest() | {"status": "interrupted"})
    with pytest.raises(CheckpointError, match="no checkpoint, though the run has done 6 steps"):
        train(resumed_config(run), run, resume=True)


def test_a_crash_before_the_copy_leaves_no_run(
    parent: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            grow(branch_of(parent.path), tmp_path / "branch")
    assert not RunDirectory(tmp_path / "branch").exists()
    assert grow(branch_of(parent.path, "steps=7"), tmp_path / "branch")[0].step == 7


def test_settings_may_change_and_are_told(parent: RunDirectory, tmp_path: Path) -> None:
    changes = ["learning_rate=1e-5", "objective=grpo", "group_size=2", "seed=3", "steps=4", "precision=bf16"]
    summary, run, notes = grow(branch_of(f"{parent.path}:2", *changes), tmp_path / "branch")
    assert summary.step == 4 and {record["step"] for record in run.read_metrics("update")} == {3, 4}
    assert {record["learning_rate"] for record in run.read_metrics("update")} == {1e-5}, "the warm-up is over"
    assert "learning_rate: 0.001 → 1e-05" in notes and "objective.name: 'drpo' → 'grpo'" in notes
    changed = {
        change["key"]: (change["before"], change["after"]) for change in run.read_manifest()["parent"]["changes"]
    }
    assert changed["learning_rate"] == (1e-3, 1e-5) and changed["seed"] == (0, 3) and "model" not in changed
    write_report(run)
    page = run.report_file.read_text(encoding="utf-8")
    assert (
        f"<dt>branch of</dt><dd>{parent.path}, after its step 2</dd>" in page and "drpo train config.yaml" not in page
    )


@pytest.mark.parametrize(
    ("origin", "step"), [("", 6), (":last", 6), (":4", 4), ("/checkpoints/step-000002", 2), (":best", None)]
)
def test_where_a_branch_begins(parent: RunDirectory, origin: str, step: int | None) -> None:
    best = best_checkpoint(parent)
    assert best is not None
    branch = branch_of(f"{parent.path}{origin}")
    assert branch.step == (best["step"] if step is None else step)
    # Of a parent that has done all its steps, as many again.
    assert branch.config.steps == (12 if branch.step == 6 else 6)
    assert ("steps" in {change["key"] for change in branch.changes}) == (branch.step == 6)


def test_a_run_with_a_colon_in_its_name(parent: RunDirectory, tmp_path: Path) -> None:
    run = Path(shutil.copytree(parent.path, tmp_path / "run:2"))
    assert branch_of(run).step == 6 and branch_of(f"{run}:4").step == 4


@pytest.mark.parametrize(
    ("origin", "overrides", "error", "says"),
    [
        (":3", [], CheckpointError, "no checkpoint of step 3.*2 .*4 .*6"),
        (":first", [], ConfigError, "give best, last or a number"),
        ("-gone", [], CheckpointError, r"holds no run .*RUN:best.*model=DIR"),
        (":4", ["steps=3"], ConfigError, r"goes on counting.*has done 4 already. For 3 more, give steps=7"),
        (":4", ["model=embedded:arithmetic"], ConfigError, "model: a branch has the weights of its checkpoint"),
        (
            ":4",
            ["lora.rank=2"],
            ConfigError,
            r"lora\.rank: .*belongs to all weights.*drpo train .*step-000004 lora\.rank=",
        ),
        (":4", ["lr=1e-5"], ConfigError, "unknown key 'lr'. Here it is learning_rate"),
    ],
)
def test_what_cannot_be_branched_is_refused(
    parent: RunDirectory, origin: str, overrides: list[str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        branch_of(f"{parent.path}{origin}", *overrides)


def test_adapters_keep_their_rank_and_their_base_may_have_moved(copyist: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = Path(shutil.copytree(copyist, tmp_path / "base"))
    adapted = start(tmp_path / "parent", base, "lora={rank: 2, alpha: 4}", "steps=2")
    for change in ("lora.rank=4", "lora.alpha=8", "lora=null"):
        with pytest.raises(ConfigError, match=r"have rank 2 and alpha 4.*drpo export .* --step 2 --out MODEL"):
            branch_of(adapted.path, change)
    moved = base.rename(tmp_path / "moved")
    branch = branch_of(adapted.path, f"model={moved}", "lora.rank=2", "steps=3")
    assert grow(branch, tmp_path / "branch")[0].step == 3


def test_a_run_is_no_model_and_names_the_way(parent: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the directory of a run") as caught:
        start(tmp_path / "run", parent.path)
    assert f"`drpo train --from {parent.path} KEY=VALUE`" in str(caught.value)
    weights = str(caught.value).rpartition("model=")[2].rstrip(".")
    assert weights == str(parent.checkpoints / "step-000006")


def test_a_branch_of_a_branch(parent: RunDirectory, tmp_path: Path) -> None:
    _, child, _ = grow(branch_of(f"{parent.path}:2", "steps=4"), tmp_path / "child")
    _, grandchild, _ = grow(branch_of(child.path, "steps=6"), tmp_path / "grandchild")
    same_from(grandchild, parent, 4)
    assert grandchild.read_manifest()["parent"]["path"] == str(child.path)


def test_the_command_line(parent: RunDirectory, tmp_path: Path) -> None:
    """A refused resume names the branch, which runs as it is named."""
    result = command.run(["train", "--resume", parent.path, "objective.delta=0.3"])
    assert result.returncode == 2 and f"`drpo train --from {parent.path} objective.delta=VALUE`" in result.stderr
    result = command.run(["train", "--from", parent.path, "objective.delta=0.3", "steps=7", "--out", tmp_path / "new"])
    assert result.returncode == 0, result.stderr
    assert "note: objective.delta: 0.15 → 0.3" in result.stdout and "step 7/7" in result.stdout
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert manifest["parent"]["step"] == 6 and manifest["command"][:3] == ["drpo", "train", "--from"]
    result = command.run(["train", "--from", f"{parent.path}:4", "seed=5", "--dry-run"], tmp_path)
    assert result.returncode == 0 and "after its step 4" in result.stdout
    assert re.search(r"^seed +5 +command line *$", result.stdout, re.MULTILINE) and "its parent" in result.stdout
    for arguments in (["--resume", parent.path], ["some.yaml"]):
        assert command.run(["train", "--from", parent.path, *arguments]).returncode == 2
    result = command.run(["train", "--resume", parent.path, "learning_rate=1e-4"])
    assert result.returncode == 0 and f"drpo train --from {parent.path}:best learning_rate=0.0001" in result.stdout
