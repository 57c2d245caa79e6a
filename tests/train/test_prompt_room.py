"""Prompts that do not fit: left out at the start or when their turn comes, never the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_loop import SMALL, Recorder, configuration, last_weights, run, without_timing

from drpo.cli import main
from drpo.errors import ConfigError, DataError, TaskError
from drpo.train.checkpoint import find_checkpoint
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from fuzz.outcomes import run_command
from support import tiny

pytestmark = pytest.mark.slow

LONG = "abcd" * 80


def problems(path: Path, *lengths: int) -> Path:
    """A prompt of each length, in letters; the answers are letters too."""
    records = [
        {"prompt": f"{i}:" + ("abcd" * length)[: length - len(f"{i}:")], "answer": "ab"}
        for i, length in enumerate(lengths)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def own(copyist: Path, file: Path, *changes: str) -> TrainConfig:
    settings = [setting for setting in SMALL if not setting.startswith("task")]
    return load_config(None, [f"model={copyist}", *settings, "task=jsonl", f"task.path={file}", *changes])[0]


def test_an_overlong_training_prompt_is_left_out_and_told_at_the_start(copyist: Path, tmp_path: Path) -> None:
    file = problems(tmp_path / "a.jsonl", *[300 if i == 0 else 20 for i in range(40)])  # its hash: not held out
    notes = Recorder()
    summary, directory = run(own(copyist, file, "steps=6"), tmp_path / "run", notes)
    told = [note for note in notes.notes if "left out" in note]
    assert summary.status == "finished" and len(told) == 1
    assert told[0].startswith("1 of 36 training prompts left out as too long: the longest has 301 tokens")
    assert "256 positions less max_new_tokens=4 leave room for 252" in told[0]
    prompts = [
        json.loads(line)["prompt"]
        for file in sorted(directory.path.glob("rollouts/step-*"))
        for line in file.read_text().splitlines()
    ]
    assert len(set(prompts)) == 35 and max(map(len, prompts)) == 20  # 48 prompts: all but the long one, in turn


def test_an_overlong_heldout_prompt_is_left_out(copyist: Path, tmp_path: Path) -> None:
    lengths = [20] * 40
    lengths[0:38] = [300] * 38
    file = problems(tmp_path / "a.jsonl", *lengths)
    with pytest.raises(ConfigError, match=r"no held-out prompt fits: the shortest of 2 has 301 tokens.*Use shorter"):
        run(own(copyist, file), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_advice_that_helps(copyist: Path, tmp_path: Path) -> None:
    file = problems(tmp_path / "a.jsonl", *[200] * 10)
    with pytest.raises(ConfigError, match=r"Lower max_new_tokens to 55 or less, use shorter prompts"):
        run(own(copyist, file, "max_new_tokens=100"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"max_new_tokens=256 leaves no room"):
        run(own(copyist, file, "max_new_tokens=256"), tmp_path / "run")
    run(own(copyist, file, "max_new_tokens=55", "steps=1"), tmp_path / "run")


def test_prompts_of_an_endless_task_are_passed_over_when_their_turn_comes(copyist: Path, tmp_path: Path) -> None:
    config = configuration(copyist, "task=python:support.user_tasks:SometimesLong", "task.length=2")
    notes = Recorder()
    whole, directory = run(config, tmp_path / "whole", notes)
    told = [note for note in notes.notes if "left out" in note]
    assert whole.status == "finished" and "321 tokens" in told[0] and any("surrogate" in note for note in told)

    asked = iter([False, True])
    part, halves = run(config, tmp_path / "halves", stop_requested=lambda: next(asked))
    assert part.status == "interrupted"
    run(config, tmp_path / "halves", resume=True)
    assert last_weights(halves) == last_weights(directory)
    assert without_timing(halves.read_metrics("update")) == without_timing(directory.read_metrics("update"))
    checkpoint = find_checkpoint(directory.checkpoints, lambda text: None)
    assert checkpoint is not None
    cursor = json.loads((checkpoint / "trainer_state.json").read_text())["cursor"]
    kept = [i for i in range(cursor) if i % 5 != 4 and i % 7 != 6]
    assert len(kept) == 4 * 8 and kept[-1] == cursor - 1


def test_an_endless_task_that_never_fits(copyist: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"1000 training prompts in a row .*321 tokens"):
        run(configuration(copyist, "task=python:support.user_tasks:AlwaysLong", "task.length=2"), tmp_path / "run")


def test_a_task_without_heldout_examples(copyist: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no held-out example"):
        run(configuration(copyist, "task=python:support.user_tasks:NothingHeldOut", "task.length=2"), tmp_path / "run")


def test_eval_filter_and_dry_run_say_it_too(
    copyist: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = problems(tmp_path / "a.jsonl", *[300 if i % 2 else 20 for i in range(40)])
    settings = ["task=jsonl", f"task.path={file}", "max_new_tokens=4", "device=cpu"]
    status, said, _ = run_command(["eval", str(copyist), *settings, "eval_samples=1"])
    assert status == 0 and "held-out prompts left out as too long: the longest has 301 tokens" in said
    out = tmp_path / "kept.jsonl"
    status, said, _ = run_command(["filter", str(copyist), "--out", str(out), "--samples", "2", *settings])
    assert status == 0 and "of 36 training prompts left out as too long" in said
    monkeypatch.setattr("sys.argv", ["drpo", "train", "--dry-run", f"model={copyist}", *settings])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert "of 36 training prompts left out" in shown and "of 4 held-out prompts left out" in shown
    longer = [*settings[:2], "max_new_tokens=250"]
    monkeypatch.setattr("sys.argv", ["drpo", "train", "--dry-run", f"model={copyist}", *longer])
    with pytest.raises(SystemExit):
        main()
    assert "no training prompt fits" in capsys.readouterr().out


def test_a_training_prompt_with_a_token_without_a_row_stops_a_run_at_the_start(copyist: Path, tmp_path: Path) -> None:
    tiny.model(len(tiny.tokenizer()) - 1).save_pretrained(tmp_path / "small")  # no row for ":", the last character
    tiny.tokenizer().save_pretrained(tmp_path / "small")
    records = [{"prompt": "ab" * (i + 1) + ":" * (i == 3), "answer": "ab"} for i in range(10)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(DataError, match=r"larger than the model: .*':'.* \d+ rows"):
        run(own(tmp_path / "small", tmp_path / "a.jsonl"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text().replace('b:"', 'b"'))
    assert run(own(tmp_path / "small", tmp_path / "a.jsonl", "steps=1"), tmp_path / "run")[0].status == "finished"
