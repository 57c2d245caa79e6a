"""What a run writes down of its updates, and what it came to."""

from __future__ import annotations

from typing import Any

from drpo.run_directory import RunDirectory
from drpo.train.observer import Summary
from drpo.train.outcome import outcome
from drpo.train.rollout import Rollout, timed_out


def update_record(
    rollout: Rollout, step: int, index: int, count: int, measured: dict[str, Any], training: float
) -> dict[str, Any]:
    """A record of metrics.jsonl.

    Args:
        rollout: the batch that the update belongs to.
        step: the number of the batch.
        index: of the update within the step.
        count: updates of the step, which share the time of the rollout.
        measured: by the update.
        training: seconds of the update.
    """
    seconds = {
        "sampling": rollout.sampling_seconds / count,
        "grading": rollout.grading_seconds / count,
        "training": training,
    }
    return {
        "kind": "update",
        "step": step,
        "update": index,
        "lag": rollout.lag,
        **measured,
        "failed_rewards": len(rollout.failures) if index == 0 else 0,
        "timed_out_rewards": len(timed_out(rollout.samples)) if index == 0 else 0,
        "timing": {**seconds, "tokens_per_second": measured["tokens"] / sum(seconds.values())},
    }


def summarize(run: RunDirectory, status: str, step: int) -> Summary:
    """How ``run`` stands after ``step``, from what it recorded."""
    evaluations, updates = run.read_metrics("evaluation"), run.read_metrics("update")
    accuracies = [record["accuracy"] for record in evaluations if "accuracy" in record]
    before, after = (accuracies[0], accuracies[-1]) if accuracies else (None, None)
    return Summary(status, step, before, after, outcome(evaluations, updates, run.read_config()))
