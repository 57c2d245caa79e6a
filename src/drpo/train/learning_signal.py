"""What `drpo train` knows of a rollout batch's learning signal, and which of its settings to try."""

from __future__ import annotations

from drpo.learning_signal import Hints, RolloutFacts
from drpo.run_directory import RunDirectory
from drpo.train.rollout import Rollout


def facts_of(rollout: Rollout) -> RolloutFacts:
    """The facts of a graded rollout batch."""
    rewards = [sample.grade.reward or 0.0 for sample in rollout.samples]
    return RolloutFacts(
        varies=any(rollout.advantages),
        cut_off=bool(rewards) and all(sample.response.stop_reason == "length" for sample in rollout.samples),
        failed=not rewards,
        reward=sum(rewards) / len(rewards) if rewards else None,
    )


def hints_for(run: RunDirectory, max_new_tokens: int) -> Hints:
    """The settings to try, by their names in the configuration."""
    return Hints(
        length=f"Raise max_new_tokens (now {max_new_tokens}).",
        responses=f"Read {run.path / 'rollouts'} (task.…, model, temperature and group_size are the settings; "
        "`drpo filter` keeps the problems that a model solves sometimes)",
        rewards="See the failures in the rollouts, and the task's reward().",
    )
