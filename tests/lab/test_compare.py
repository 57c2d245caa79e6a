"""`drpo lab compare`: a study from a command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drpo.cli.lab import run_compare
from drpo.errors import ConfigError, DataError
from drpo.lab.plan import make_plan
from drpo.lab.results import read_csv
from drpo.lab.study import load_study
from drpo.lab.typed_study import typed_study

pytestmark = pytest.mark.slow


def test_the_study_is_what_the_command_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text("".join(f'{{"prompt": "{n}", "answer": "1"}}\n' for n in range(9)))
    settings = ["task=jsonl", "task.path=mine.jsonl", "learning_rate=1e-4", "objective.delta=0.2"]
    name, study = typed_study(["drpo", "grpo", "drpo:delta=0.3,deadzone=0.01"], settings, 3)
    assert name == "drpo-grpo-drpo_delta0.3_deadzone0.01" and study.seeds == [0, 1, 2]
    configs = {run.arm: run.config for run in make_plan(study).shared}
    assert [config.make_objective().shift_bound for config in configs.values()] == [0.2, None, 0.3]
    assert {config.learning_rate for config in configs.values()} == {1e-4}
    assert {config.task.parameters["path"] for config in configs.values()} == {str(tmp_path / "mine.jsonl")}
    assert [(claim.ours, claim.theirs) for claim in study.hypotheses] == [
        ("drpo", "grpo"),
        ("drpo", "drpo_delta0.3_deadzone0.01"),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["drpo"], "two or more different objectives, got drpo"),
        (["drpo", "drpo"], "two or more different objectives"),
        (["drpo", "dpro"], "unknown objective 'dpro'. Did you mean 'drpo'"),
        (["drpo", "grpo", "seed=3"], "--seeds N"),
        (["drpo", "grpo", "lr=3"], "learning_rate"),
        (["drpo", "drpo:detla=0.3", "steps=6", "eval_every=2"], "detla"),
        (["drpo", "grpo", "mine.jsonl"], r"mine.jsonl is a data file.*task=jsonl task.path=mine.jsonl"),
        (["drpo", "grpo", "--seed", "3"], "No such option: --seed"),
        (["drpo", "grpo", "steps=6"], r"gives 1 evaluation in 6 steps; .* Set eval_every=2 \("),
        (["drpo", "grpo", "steps=2"], r"Set steps=3 and eval_every=1 \("),
        (["drpo", "grpo", "task.path=mine.jsonl"], "Type task=jsonl or task=math beside task.path="),
        (["drpo", "grpo", "task=jsonl", "task.path=absent.jsonl"], "absent.jsonl"),
        (["drpo", "grpo", "model=absent"], "absent"),
        (["own-run", "drpo"], "own-run is a directory.*drpo compare RUN RUN"),
    ],
)
def test_what_is_refused(arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text('{"prompt": "1", "answer": "1"}\n')
    (tmp_path / "own-run").mkdir()
    with pytest.raises((ConfigError, DataError), match=says):
        run_compare(arguments, 3, None, 1)
    assert not (tmp_path / "runs").exists()


def test_two_objectives_on_200_problems_of_ones_own(
    copyist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At smoke size; the same command again finds everything done, and the study's file goes on."""
    pairs = [f"{a}{b}{c}{d}" for a in "abcd" for b in "abcd" for c in "abcd" for d in "abcd"][:200]
    data = tmp_path / "problems.jsonl"
    data.write_text("".join(json.dumps({"prompt": pair, "answer": pair}) + "\n" for pair in pairs))
    words = ["drpo", "grpo", f"model={copyist}", "task=jsonl", f"task.path={data}", "task.heldout_fraction=0.25"]
    words += ["steps=3", "eval_every=1", "prompts_per_step=4", "group_size=2", "updates_per_step=2"]
    words += ["max_new_tokens=4", "eval_samples=1", "device=cpu"]
    path = tmp_path / "study"
    run_compare(words, 3, path, 2)
    said = capsys.readouterr().out
    assert "6 finished" in said and "claim   drpo ends higher than grpo." in said and "report.html" in said
    run_compare(words, 3, path, 2)
    again = capsys.readouterr().out
    assert "6 finished" in again and "starts" not in again
    rows = read_csv(path / "results.csv")
    assert [(row["arm"], row["seed"]) for row in rows] == [(arm, seed) for seed in range(3) for arm in ("drpo", "grpo")]
    assert {row["heldout_problems"] for row in rows} == {50}
    assert load_study(str(path / "study.yaml"))[1].seeds == [0, 1, 2]
