"""Runs side by side: configurations, differences with intervals, answers to the same prompts."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from drpo.comparison.compare import compare_runs, csv_rows
from drpo.comparison.runs import find_runs
from drpo.errors import CheckpointError, DataError
from drpo.intervals import difference_interval, wilson_interval
from drpo.report.comparison.page import build_comparison_page
from drpo.run_directory import RunDirectory
from support import command
from support.page_check import check
from support.synthetic_run import config, evaluation_record, make_run, manifest, sampled, update_record

DRPO = {"name": "drpo", "delta": 0.15}
GRPO = {"name": "grpo", "ratio_low": 0.2, "ratio_high": 0.28}


def run(path: Path, correct: int, reward: float = 0.5, steps: int = 4, status: str = "finished", **keys: Any) -> Path:
    """A run whose last evaluation found ``correct`` of 200 samples right, with the same reward at each step."""
    import numpy as np

    directory = RunDirectory(path)
    directory.create({**config(steps, 1), "objective": DRPO, **keys}, manifest(status=status))
    directory.append_metrics(evaluation_record(0, 20))
    for step in range(1, steps + 1):
        record = update_record(step, 0, steps, np.random.default_rng(step))
        directory.append_metrics({**record, "reward": reward})
    directory.append_metrics(evaluation_record(steps, correct))
    return path


def test_seeds_are_one_configuration_and_differences_are_paired_by_seed(tmp_path: Path) -> None:
    for seed, (ours, theirs) in enumerate([(100, 90), (120, 100), (90, 84)]):
        run(tmp_path / f"a{seed}", theirs, seed=seed)
        run(tmp_path / f"b{seed}", ours, seed=seed, objective=GRPO)
    found = compare_runs([tmp_path])
    assert found.groups == {"drpo": "drpo", "grpo": "grpo"}
    assert [row.group for row in found.rows] == ["drpo"] * 3 + ["grpo"] * 3
    accuracy = next(one for one in found.differences if one.figure == "accuracy")
    # By hand: the differences .05, .10, .03 have mean .06 and variance .0013; t at 2 degrees of freedom is 4.302653.
    half = 4.302653 * math.sqrt(0.0013 / 3)
    assert (accuracy.ours, accuracy.theirs, accuracy.basis) == ("grpo", "drpo", "paired by seed, 3 seeds")
    assert [accuracy.value, accuracy.low, accuracy.high] == pytest.approx([0.06, 0.06 - half, 0.06 + half], abs=1e-6)
    assert not accuracy.is_clear
    assert found.sentence == (
        "grpo ended highest, with a final held-out accuracy of 0.517, 0.060 above drpo; the 95 % confidence interval "
        "of the difference includes 0."
    )
    assert found.settings == {
        "objective": ["drpo(delta=0.15)", "grpo(ratio_low=0.2, ratio_high=0.28)"],
    }


def test_one_run_each_has_the_interval_of_its_evaluations(tmp_path: Path) -> None:
    paths = [run(tmp_path / "one", 80), run(tmp_path / "two", 140, learning_rate=1e-4)]
    found = compare_runs(paths)
    accuracy, reward = found.differences
    expected = difference_interval((0.4, *wilson_interval(80, 200)), (0.7, *wilson_interval(140, 200)))
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx(expected)
    assert accuracy.is_clear and reward.low is None
    assert list(found.groups) == ["learning_rate=0.0003", "learning_rate=0.0001"]
    assert any("one run" in remark for remark in found.remarks)


def test_what_an_unfinished_run_has_reached_is_not_its_end(tmp_path: Path) -> None:
    run(tmp_path / "a0", 100, seed=0)
    run(tmp_path / "a1", 100, seed=1)
    run(tmp_path / "b0", 120, seed=0, objective=GRPO)
    run(tmp_path / "b1", 10, seed=1, objective=GRPO, status="interrupted")
    found = compare_runs([tmp_path])
    accuracy = found.differences[0]
    assert accuracy.value == pytest.approx(0.1) and accuracy.low is None
    assert "Not finished: b1." in found.remarks


def test_settings_that_decide_no_figure_do_not_part_runs(tmp_path: Path) -> None:
    run(tmp_path / "a", 100, seed=0, trackers=["wandb"])
    run(tmp_path / "b", 100, seed=1, trackers=[], log_tokens=True)
    assert len(compare_runs([tmp_path]).groups) == 1


def test_a_repeated_seed_is_a_configuration_by_itself(tmp_path: Path) -> None:
    """Two runs of one seed cannot be paired with another's: they stay apart, under their directories' names."""
    for name in ("first", "again"):
        run(tmp_path / name, 100, seed=0)
    assert sorted(compare_runs([tmp_path]).groups) == ["again", "first"]


def test_labels_name_the_parameter_that_parts_one_objective(tmp_path: Path) -> None:
    run(tmp_path / "a", 100)
    run(tmp_path / "b", 100, objective={"name": "drpo", "delta": 0.3})
    run(tmp_path / "c", 100, objective=GRPO)
    assert list(compare_runs([tmp_path]).groups) == ["drpo, delta=0.15", "drpo, delta=0.3", "grpo"]


def test_runs_of_other_tasks_are_said_to_be_incomparable(tmp_path: Path) -> None:
    run(tmp_path / "a", 100)
    run(tmp_path / "b", 100, task={"name": "copy"})
    assert any("task.name" in remark for remark in compare_runs([tmp_path]).remarks)


def test_a_directory_of_runs_at_any_depth_and_each_run_once(tmp_path: Path) -> None:
    run(tmp_path / "study" / "deep" / "a", 100)
    run(tmp_path / "study" / "b", 100, learning_rate=1e-4)
    (tmp_path / "study" / ".hidden").mkdir()
    found = find_runs([tmp_path / "study", tmp_path / "study" / "b"])
    assert [one.path.name for one in found] == ["b", "a"]


@pytest.mark.parametrize(
    ("given", "said"), [("nothing", "does not exist"), ("empty", "holds no run"), ("one", "needs two")]
)
def test_what_cannot_be_compared(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    run(tmp_path / "one", 100)
    with pytest.raises(
        DataError, match={"nothing": "does not exist", "empty": "holds no run", "one": "needs two"}[given]
    ):
        compare_runs([tmp_path / given])


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    run(tmp_path / "a", 100)
    (run(tmp_path / "b", 100) / "config.yaml").write_text("- 3\n")
    with pytest.raises(CheckpointError, match=r"b/config\.yaml"):
        compare_runs([tmp_path])


def test_runs_without_evaluations_or_updates(tmp_path: Path) -> None:
    make_run(tmp_path / "a", steps=0, every=0)
    make_run(tmp_path / "b", steps=3, every=0)
    found = compare_runs([tmp_path])
    assert found.differences == [] and "No run has an evaluation" in found.sentence
    check(build_comparison_page(found))


def test_prompts_on_which_rewards_differ_come_first(tmp_path: Path) -> None:
    paths = [run(tmp_path / "a", 100), run(tmp_path / "b", 100, objective=GRPO)]
    for path, rewards in zip(paths, ([1.0, 0.0, 1.0], [1.0, 1.0, 1.0]), strict=True):
        records = [sampled(f"prompt {i}", f"{path.name} {i}", reward) for i, reward in enumerate(rewards)]
        RunDirectory(path).write_rollouts("evaluation", 4, records)
    found = compare_runs(paths).answered
    assert [one.prompt for one in found] == ["prompt 1", "prompt 0", "prompt 2"]
    assert {label: answer.text for label, answer in found[0].answers.items()} == {"drpo": "a 1", "grpo": "b 1"}


def test_the_page_shows_text_of_models_and_directories_as_text(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)></script>\u202e"
    paths = [run(tmp_path / "a<b>", 100), run(tmp_path / "b", 100, objective={"name": hostile})]
    for path in paths:
        RunDirectory(path).write_rollouts("evaluation", 4, [sampled(hostile, hostile)])
    page = check(build_comparison_page(compare_runs(paths)))
    assert "<img" not in page and "\u202e" not in page


def test_the_command(tmp_path: Path) -> None:
    for seed in (0, 1):
        run(tmp_path / "runs" / f"a{seed}", 100 + seed, seed=seed)
        run(tmp_path / "runs" / f"b{seed}", 90, seed=seed, objective=GRPO)
    done = command.run(["compare", "runs", "--csv", "runs.csv"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("drpo ended highest")
    assert check((tmp_path / "runs" / "comparison.html").read_text())
    lines = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert [line["accuracy"] for line in lines] == ["0.5", "0.505", "0.45", "0.45"]
    as_json = command.run(["compare", "runs/a0", "runs/b0", "--json"], cwd=tmp_path)
    assert json.loads(as_json.stdout)["groups"] == {"drpo": "drpo", "grpo": "grpo"}
    assert not (tmp_path / "comparison.html").exists()
    refused = command.run(["compare", "runs/a0"], cwd=tmp_path)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


def test_every_figure_of_a_row_is_in_the_csv(tmp_path: Path) -> None:
    run(tmp_path / "a", 100)
    run(tmp_path / "b", 100, learning_rate=1e-4)
    found = compare_runs([tmp_path])
    assert csv_rows(found)[1]["learning_rate"] == 1e-4
    assert csv_rows(found)[0]["accuracy_low"] == found.rows[0].accuracy_low
