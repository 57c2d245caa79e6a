"""Going on with a run: what is refused and leaves every byte, what may change, and what is needed besides the run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drpo.errors import CheckpointError, ConfigError, DataError, DrpoError
from drpo.run_checkpoints import best_checkpoint
from drpo.run_directory import RunDirectory
from drpo.train.branch import make_branch
from drpo.train.checkpoint import find_checkpoint
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.observer import Summary
from drpo.train.resume import CHANGEABLE, KEPT, resumed_config
from support.notes import Notes

pytestmark = pytest.mark.slow

SETTINGS = [
    "task=copy",
    "task.length=2",
    "steps=4",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "learning_rate=1e-3",
    "max_new_tokens=4",
    "eval_every=0",
    "eval_examples=4",
    "checkpoint_every=2",
    "device=cpu",
]


def start(path: Path, model: Path, *overrides: str) -> RunDirectory:
    config, _ = load_config(None, [f"model={model}", *SETTINGS, *overrides])
    train(config, RunDirectory(path))
    return RunDirectory(path)


def resume(run: RunDirectory, *overrides: str) -> tuple[Summary, list[str]]:
    observer = Notes()
    return train(resumed_config(run, overrides), run, observer, resume=True), observer.notes


@pytest.fixture(scope="module")
def finished(copyist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("finished") / "run", copyist).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDirectory:
    """A finished run of four steps, to be damaged."""
    return RunDirectory(shutil.copytree(finished, tmp_path / "run"))


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


# ---- the configuration is what the run wrote


def edited(values: dict[str, Any]) -> Callable[[RunDirectory], None]:
    def edit(run: RunDirectory) -> None:
        run.config_file.write_text(yaml.safe_dump(run.read_config() | values, sort_keys=False))

    return edit


def cut(share: float) -> Callable[[RunDirectory], None]:
    def cut(run: RunDirectory) -> None:
        whole = run.config_file.read_bytes()
        run.config_file.write_bytes(whole[: int(share * len(whole))])

    return cut


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut(0.0), "is empty"),
        (cut(0.3), "not what the run wrote|cannot be read"),
        (cut(0.9), "not what the run wrote|cannot be read"),
        (edited({"learning_rate": 1.0}), "learning_rate"),
        (edited({"seed": 7}), "seed"),
        (edited({"unknown": 7}), "unknown"),
        (lambda run: run.config_file.write_text("- a\n- b\n"), "holds a list"),
        (lambda run: run.config_file.write_text("just words\n"), "holds a str"),
        (lambda run: run.config_file.write_text("{}\n"), "not what the run wrote"),
        (lambda run: run.config_file.write_bytes(b"\xff\x00"), "cannot be read"),
        (lambda run: run.config_file.write_text("[" * 50_000), "cannot be read"),
        (lambda run: run.config_file.write_text("a: 2020-99-99\n"), "cannot be read"),
    ],
)
def test_a_cut_empty_or_edited_configuration_is_refused_and_nothing_is_written(
    run: RunDirectory, damage: Callable[[RunDirectory], None], says: str
) -> None:
    damage(run)
    before = contents(run.path)
    with pytest.raises(CheckpointError, match=says) as caught:
        resume(run, "steps=6")
    assert "config.yaml" in str(caught.value) and "\n" not in str(caught.value)
    assert contents(run.path) == before


def without_copy(run: RunDirectory) -> None:
    """As a run of an earlier version: its manifest has no copy of the settings."""
    run.write_manifest({key: value for key, value in run.read_manifest().items() if key not in ("config", "data")})


def test_a_run_of_an_earlier_version_resumes_if_its_configuration_is_whole(run: RunDirectory) -> None:
    without_copy(run)
    values = run.read_config()
    del values["router_replay"]  # a key that the version did not have
    run.config_file.write_text(yaml.safe_dump(values, sort_keys=False))
    assert resume(run, "steps=5")[0].step == 5
    assert run.read_config()["router_replay"] is False and run.read_manifest()["config"]["steps"] == 5


def test_every_cut_of_a_configuration_without_a_copy_is_refused(run: RunDirectory) -> None:
    without_copy(run)
    whole = run.config_file.read_bytes()
    for size in range(0, len(whole), 37):
        run.config_file.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"config\.yaml"):
            resumed_config(run)


def test_a_crash_between_the_two_copies_of_changed_settings_loses_nothing(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest already holds the new settings, config.yaml the old ones."""
    create = RunDirectory.create

    def crash(self: RunDirectory, config: dict[str, Any], manifest: dict[str, Any]) -> None:
        self.write_manifest(manifest)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "create", crash)
    with pytest.raises(KeyboardInterrupt):
        resume(run, "steps=5")
    monkeypatch.setattr(RunDirectory, "create", create)
    assert resume(run, "steps=6")[0].step == 6
    assert "config_before" not in run.read_manifest()


def test_a_key_that_the_program_gains_stops_no_run(run: RunDirectory) -> None:
    for name in ("config.yaml", "manifest.json"):
        file = run.path / name
        values = yaml.safe_load(file.read_text())
        (values if name == "config.yaml" else values["config"]).pop("mismatch_limit")
        file.write_text(json.dumps(values))
    assert resume(run, "steps=5")[0].step == 5


# ---- what may change


def test_more_steps_and_another_learning_rate_are_recorded_with_the_step(run: RunDirectory) -> None:
    summary, notes = resume(run, "steps=6", "learning_rate=1e-5", "eval_every=1")
    assert summary.step == 6
    rates = [record["learning_rate"] for record in run.read_metrics("update")]
    assert rates == pytest.approx([1e-3] * 8 + [1e-5] * 4)
    assert run.read_manifest()["changes"] == [
        {"step": 4, "key": "steps", "before": 4, "after": 6},
        {"step": 4, "key": "learning_rate", "before": 1e-3, "after": 1e-5},
        {"step": 4, "key": "eval_every", "before": 0, "after": 1},
    ]
    assert any("learning_rate: 0.001 → 1e-05 from step 5 on" in note for note in notes)
    resume(run, "steps=7")
    assert [change["step"] for change in run.read_manifest()["changes"]] == [4, 4, 4, 6]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("seed=3", "order of the training data"),
        ("group_size=2", "order of the training data"),
        ("task.length=3", "order of the training data"),
        ("objective.delta=0.3", "what the objective is"),
        ("objective=grpo", "what the objective is"),
        ("max_new_tokens=8", "what the objective is"),
        ("precision=bf16", "belong to it"),
        ("lora={rank: 2}", "belong to it"),
        ("model=embedded:arithmetic", "the weights come from the checkpoint"),
        ("steps=3", "has done 4 already"),
    ],
)
def test_what_must_not_change_is_refused_with_what_to_do(run: RunDirectory, change: str, says: str) -> None:
    before = contents(run.path)
    with pytest.raises(ConfigError, match=says):
        resume(run, "steps=6", change)
    assert contents(run.path) == before


def test_a_refused_change_names_the_branch(run: RunDirectory) -> None:
    with pytest.raises(ConfigError) as caught:
        resume(run, "objective.delta=0.3")
    (command,) = [part for part in str(caught.value).split("`") if part.startswith("drpo train")]
    _, _, option, origin, change = command.replace("VALUE", "0.3").split()
    assert (option, origin) == ("--from", str(run.path))
    assert make_branch(origin, [change], print).config.make_objective().shift_bound == 0.3


def test_the_tables_name_settings_that_exist() -> None:
    later = {"threads", "trust_remote_code"}  # settings that this version may not have
    assert (CHANGEABLE | KEPT.keys()) - later <= TrainConfig.model_fields.keys()
    assert not CHANGEABLE & KEPT.keys()


def test_a_finished_run_says_what_to_type_and_changes_nothing(run: RunDirectory) -> None:
    before = contents(run.path)
    summary, notes = resume(run)
    assert summary.status == "finished" and f"drpo train --resume {run.path} steps=8`" in notes[-1]
    assert "--from" not in notes[-1]
    _, notes = resume(run, "learning_rate=1e-5", "project=null")
    assert "no setting was changed" in notes[-1] and not any("from step" in note for note in notes)
    assert f"`drpo train --resume {run.path} steps=8 learning_rate=1e-05`" in notes[-1]
    assert f"`drpo train --from {run.path}:best learning_rate=1e-05`" in notes[-1]
    assert contents(run.path) == before


# ---- a resume needs the run alone


def test_the_base_model_may_be_gone(copyist: Path, tmp_path: Path) -> None:
    base = shutil.copytree(copyist, tmp_path / "base")
    run = start(tmp_path / "run", base)
    shutil.rmtree(base)
    assert resume(run, "steps=5")[0].step == 5


def test_the_base_of_adapters_may_be_somewhere_else(copyist: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = shutil.copytree(copyist, tmp_path / "base")
    run = start(tmp_path / "run", base, "lora={rank: 2}")
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"base.*model="):
        resume(run, "steps=5")
    with pytest.raises(ConfigError, match="nowhere"):
        resume(run, "steps=5", f"model={tmp_path / 'nowhere'}")
    assert resume(run, "steps=5", f"model={moved}")[0].step == 5
    assert resume(run, "steps=6")[0].step == 6
    assert [change["key"] for change in run.read_manifest()["changes"]] == ["model", "steps", "steps"]


def test_relative_paths_hold_in_another_working_directory(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(copyist, tmp_path / "base")
    pairs = [a + b for a in "abcd" for b in "abcd"]
    (tmp_path / "sums.jsonl").write_text("".join(f'{{"prompt": "{p}", "answer": "{p}"}}\n' for p in pairs))
    monkeypatch.chdir(tmp_path)
    data = [word for word in SETTINGS if not word.startswith("task")] + ["task=jsonl", "task.path=sums.jsonl"]
    config, _ = load_config(None, ["model=base", *data])
    run = RunDirectory(tmp_path / "run")
    train(config, run)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run.read_config()["task"]["path"] == str(tmp_path / "sums.jsonl")
    assert resume(run, "steps=5")[0].step == 5
    moved = (tmp_path / "sums.jsonl").rename(tmp_path / "moved.jsonl")
    with pytest.raises(ConfigError, match=r"not there any more.*task\.path=FILE"):
        resume(run, "steps=6")
    assert resume(run, "steps=6", f"task.path={moved}")[0].step == 6
    moved.write_text(moved.read_text() + '{"prompt": "a", "answer": "a"}\n')
    with pytest.raises(ConfigError, match="has changed since the run started"):
        resume(run, "steps=7")


def test_checkpoints_that_were_removed_do_not_erase_the_run(run: RunDirectory) -> None:
    shutil.rmtree(run.checkpoints)
    before = contents(run.path)
    with pytest.raises(CheckpointError, match="no checkpoint, though the run has done 4 steps"):
        resume(run, "steps=6")
    assert contents(run.path) == before


# ---- whose checkpoints


def test_what_a_user_put_beside_the_checkpoints_stays_and_is_not_resumed_from(run: RunDirectory) -> None:
    newest = run.checkpoints / "step-000004"
    for name in ("step-000002-best", "step-best", "step-000009 (copy)", "step-9"):
        shutil.copytree(newest, run.checkpoints / name)
    (run.checkpoints / "step-000011").write_text("a file")
    assert find_checkpoint(run.checkpoints, print) == newest
    assert resume(run, "steps=8")[0].step == 8
    best = best_checkpoint(run)
    assert best is not None and best["step"] in (4, 8)
    assert {path.name for path in run.checkpoints.iterdir()} == {
        "step-000002-best",
        "step-best",
        "step-000009 (copy)",
        "step-9",
        "step-000011",
        "step-000006",
        "step-000008",
        f"step-{best['step']:06d}",
    }


def test_checkpoints_are_in_the_order_of_their_numbers(run: RunDirectory) -> None:
    for step in (999_999, 1_000_000):
        folder = run.checkpoints / f"step-{step}"
        shutil.copytree(run.checkpoints / "step-000004", folder)
        forge(folder, "trainer_state.json", step=step)
    found = find_checkpoint(run.checkpoints, print)
    assert found is not None and found.name == "step-1000000"


def forge(folder: Path, name: str, **changes: Any) -> None:
    """Change a JSON file of a checkpoint, and its checksum with it."""
    import hashlib

    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    sums = json.loads((folder / "checksums.json").read_text())
    sums[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(sums))


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -5},
        {"step": 1e30},
        {"step": 3},
        {"updates": -1},
        {"cursor": "4"},
        {"cursor": None},
        {"python": [3]},
        {"python": [3, [2**40] * 625, None]},
        {"numpy": ["MT19937", [], 0, 0, 0.0]},
        {"older": [[1]]},
        {"older": [[1, 2]]},
        {"step": 10**400},
    ],
)
def test_a_forged_state_is_passed_over_for_an_older_checkpoint(run: RunDirectory, changes: dict[str, Any]) -> None:
    forge(run.checkpoints / "step-000004", "trainer_state.json", **changes)
    notes: list[str] = []
    assert find_checkpoint(run.checkpoints, notes.append) == run.checkpoints / "step-000002"
    assert len(notes) == 1 and "step-000004 is damaged" in notes[0] and "\n" not in notes[0]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"model.safetensors": 3}', '{"../../config.yaml": "%s"}' % ("0" * 64), "[" * 99_999],
)
def test_checksums_that_are_none_are_damage(run: RunDirectory, text: str) -> None:
    (run.checkpoints / "step-000004" / "checksums.json").write_text(text)
    notes: list[str] = []
    assert find_checkpoint(run.checkpoints, notes.append) == run.checkpoints / "step-000002"
    assert "checksums.json" in notes[0] and "\n" not in notes[0]


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x00" * 40])
def test_damaged_weights_fall_back_and_the_run_ends_as_before(run: RunDirectory, content: bytes) -> None:
    expected = {name: text for name, text in contents(run.path).items() if name.startswith("rollouts")}
    (run.checkpoints / "step-000004" / "model.safetensors").write_bytes(content)
    summary, notes = resume(run)
    assert summary.step == 4 and any("step-000004 is damaged" in note for note in notes)
    assert {name: text for name, text in contents(run.path).items() if name.startswith("rollouts")} == expected


def test_a_linked_checkpoint_is_resumed_from_and_only_the_link_is_removed(run: RunDirectory, tmp_path: Path) -> None:
    newest = run.checkpoints / "step-000004"
    newest.rename(tmp_path / "store")
    newest.symlink_to(tmp_path / "store")
    (run.checkpoints / "step-000007").symlink_to(tmp_path / "nowhere")
    (run.checkpoints / "step-000008").symlink_to(tmp_path / "store")
    summary, notes = resume(run, "steps=10")
    assert summary.step == 10 and any("step-000008 is damaged (trainer_state.json is of step 4)" in n for n in notes)
    assert (tmp_path / "store" / "model.safetensors").is_file()


def test_half_removed_and_half_written_checkpoints_are_cleaned_up_at_the_next_start(run: RunDirectory) -> None:
    for name in (".removing-step-000002", ".writing-step-000006"):
        shutil.copytree(run.checkpoints / "step-000002", run.checkpoints / name)
    (run.checkpoints / ".mine").mkdir()
    resume(run)
    assert {path.name for path in run.checkpoints.iterdir()} == {".mine", "step-000002", "step-000004"}


# ---- the records


def test_a_torn_or_empty_record_is_said_with_what_is_missing(run: RunDirectory) -> None:
    lines = run.metrics_file.read_bytes()
    run.metrics_file.write_bytes(lines[:-7])
    torn = f"{run.metrics_file}: the last line is incomplete and ignored"
    assert run.gaps()[0] == torn
    _, notes = resume(run, "steps=5")
    assert torn in notes
    run.metrics_file.write_bytes(b"")
    assert "the evaluation before training and the updates of steps 1 to 5" in run.gaps()[0]
    _, notes = resume(run, "steps=6")
    assert any("lacks the evaluation before training and the updates of steps 1 to 5" in note for note in notes)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{",
        '{"threads": 1000000}',
        '{"threads": 0}',
        '{"threads": "many"}',
        '{"run_id": "../../x"}',
        '{"status": 3}',
        '{"config": 3}',
        '{"seed": -1}',
        "[" * 99_999,
        '{"seed": %s}' % ("9" * 5000),
    ],
)
def test_a_damaged_manifest_is_one_line_and_nothing_is_written(run: RunDirectory, manifest: str) -> None:
    run.manifest_file.write_text(manifest)
    before = contents(run.path)
    with pytest.raises(DataError, match=r"manifest\.json") as caught:
        resume(run, "steps=6")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert contents(run.path) == before


def test_without_a_manifest_a_run_goes_on(run: RunDirectory) -> None:
    run.manifest_file.unlink()
    assert resume(run, "steps=5")[0].step == 5


def test_stray_files_are_passed_over(run: RunDirectory) -> None:
    whole = run.rollouts / "step-000001.jsonl"
    strays = [
        run.rollouts / name
        for name in (
            "step-000001 (1).jsonl",
            "step-000001 (copy).jsonl",
            "step-1.jsonl",
            "step-000002.jsonl.bak",
            "step-000003-old.jsonl",
        )
    ]
    for stray in strays:
        shutil.copy(whole, stray)
    (run.rollouts / "step-000099.jsonl").mkdir()
    (run.path / "notes.txt").write_text("mine")
    assert resume(run, "steps=5")[0].step == 5
    assert all(stray.exists() for stray in strays) and list(run.read_rollouts("step")) == [1, 2, 3, 4, 5]


# ---- one trainer at a time

HOLD = """
import sys, time
from drpo.run_directory import RunDirectory
with RunDirectory(sys.argv[1]).locked(print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("fresh", [False, True])
def test_a_second_trainer_is_refused_and_the_holder_named_until_it_dies(
    run: RunDirectory, copyist: Path, tmp_path: Path, fresh: bool
) -> None:
    path = tmp_path / "fresh" if fresh else run.path
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        before = contents(path)
        with pytest.raises(CheckpointError, match=rf"in use by process {holder.pid} on .+, since \d{{4}}"):
            start(path, copyist) if fresh else resume(run, "steps=5")
        assert contents(path) == before
    finally:
        holder.kill()
        holder.wait()
    assert (start(path, copyist) and True) if fresh else resume(run, "steps=5")[0].step == 5


def test_a_file_system_without_locks_is_said(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import errno
    import fcntl

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    summary, notes = resume(run, "steps=5")
    assert summary.step == 5 and "without locks" in notes[0]


def test_a_run_that_cannot_start_leaves_no_lock_behind(copyist: Path, tmp_path: Path) -> None:
    with pytest.raises(DrpoError):
        start(tmp_path / "a" / "b" / "run", copyist, "task.letters=xyz")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(DrpoError):
        start(tmp_path / "mine", copyist, "task.letters=xyz")
    assert list((tmp_path / "mine").iterdir()) == []
