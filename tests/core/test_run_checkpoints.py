"""Which checkpoint is the best."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from drpo.run_checkpoints import best_checkpoint, best_evaluation, checkpoint_folders, step_of
from drpo.run_directory import RunDirectory


def evaluations(*accuracies: Any) -> list[dict[str, Any]]:
    """After steps 0, 2, 4, …"""
    return [{"kind": "evaluation", "step": 2 * place, "accuracy": value} for place, value in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("accuracies", "steps", "best"),
    [
        ((0.1, 0.5, 0.7, 0.6), {2, 4, 6}, 4),
        ((0.1, 0.7, 0.7, 0.7), {2, 4, 6}, 2),  # the earliest of equal ones
        ((0.9, 0.5, 0.7, 0.6), {2, 4, 6}, 4),  # the model before training has no checkpoint
        ((0.9, 0.5, 0.7, 0.6), {0, 2, 4, 6}, 0),  # that of a branch has
        ((0.1, 0.9, 0.7, 0.6), {3, 4, 5, 6}, 4),
        ((0.1, None, math.nan, 0.2), {2, 4, 6}, 6),
        ((0.1, 0.9), {3}, None),
        ((), {2}, None),
    ],
)
def test_the_first_of_the_highest_that_has_a_checkpoint(
    accuracies: tuple[Any, ...], steps: set[int], best: int | None
) -> None:
    found = best_evaluation(evaluations(*accuracies), steps)
    assert (found and found["step"]) == best


def test_only_whole_checkpoints_of_ours_count(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for name in ("step-000002", "step-000006", ".writing-step-000004", ".removing-step-000008", "step-000010-best"):
        (run.checkpoints / name).mkdir(parents=True)
    (run.checkpoints / "step-000004").write_text("a file")
    for record in evaluations(0.1, 0.3, 0.9, 0.2, 0.8, 0.7):
        run.append_metrics(record)
    assert list(checkpoint_folders(run.checkpoints)) == [2, 6]
    best = best_checkpoint(run)
    assert best is not None and best["step"] == 2
    assert step_of(Path("step-000010-best")) is None and step_of(Path("a/step-1000000")) == 1_000_000
