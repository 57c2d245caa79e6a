"""Which checkpoint of a run is meant: ``last``, ``best``, or the number of its step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from drpo.errors import CheckpointError, ConfigError
from drpo.run_checkpoints import best_evaluation, checkpoint_folders
from drpo.run_directory import RunDirectory
from drpo.train.checkpoint import damage_of, find_checkpoint

LAST, BEST = "last", "best"


def choose_checkpoint(run: RunDirectory, which: str, note: Callable[[str], None]) -> Path:
    """The checkpoint of ``run`` that ``which`` names, found to be whole.

    Args:
        run: that holds it.
        which: ``last``; ``best`` by held-out accuracy, among the steps that were evaluated and have a checkpoint; or a
            step's number.
        note: told of a damaged checkpoint that is passed over, and of an evaluation that was better than the best.

    Raises:
        ConfigError: ``which`` is none of these. CheckpointError: the run has no such checkpoint, or it is damaged.
            SchemaError: a newer version wrote it.
    """
    folders = checkpoint_folders(run.checkpoints)
    if which not in (LAST, BEST) and not (which.isascii() and which.isdigit()):
        raise ConfigError(f"--step {which!r} is no step: give best, last or a number. {_held(run, folders)}")
    if not folders:
        raise CheckpointError(f"{run.path} has no checkpoint yet. Wait for its first one, or give a model instead.")
    if which == BEST:
        return _best(run, folders, note)
    if which == LAST:
        checkpoint = find_checkpoint(run.checkpoints, note)
        assert checkpoint is not None  # there are some
        return checkpoint
    checkpoint = folders.get(int(which))
    if checkpoint is None:
        raise CheckpointError(f"{run.path} holds no checkpoint of step {int(which)}. {_held(run, folders)}")
    if (damage := damage_of(checkpoint)) is not None:
        raise CheckpointError(f"checkpoint {checkpoint} is damaged ({damage}). {_held(run, folders)}")
    return checkpoint


def run_of_checkpoint(path: Path) -> RunDirectory | None:
    """The run in whose checkpoints ``path`` is a directory."""
    place = path.absolute()
    run = RunDirectory(place.parent.parent)
    return run if place.parent.name == run.checkpoints.name and place.is_dir() and run.exists() else None


def _best(run: RunDirectory, folders: dict[int, Path], note: Callable[[str], None]) -> Path:
    evaluations, left = run.read_metrics("evaluation"), dict(folders)
    while (best := best_evaluation(evaluations, left.keys())) is not None:
        checkpoint = left.pop(best["step"])
        if (damage := damage_of(checkpoint)) is None:
            _say_what_was_better(best["step"], best["accuracy"], evaluations, note)
            return checkpoint
        note(f"checkpoint {checkpoint.name} is damaged ({damage}); the best of the others is taken")
    raise CheckpointError(
        f"{run.path} holds no whole checkpoint of a step that was evaluated, so that none is known as the best. Use "
        f"--step last, or let the run evaluate more often with eval_every. {_held(run, folders)}"
    )


def _say_what_was_better(step: int, accuracy: float, evaluations: list[dict], note: Callable[[str], None]) -> None:
    """A best checkpoint below what was measured without one, such as before training, is worth a word."""
    highest = max(evaluations, key=lambda record: record.get("accuracy") or 0.0)
    if (highest.get("accuracy") or 0.0) > accuracy:
        when = "before training" if highest["step"] == 0 else f"after step {highest['step']}, which has no checkpoint,"
        note(f"step {step} is the best checkpoint, with {accuracy:.3f}; {when} it was {highest['accuracy']:.3f}")


def _held(run: RunDirectory, folders: dict[int, Path]) -> str:
    """The steps that can be named, with what was measured of them."""
    measured = {record["step"]: record["accuracy"] for record in run.read_metrics("evaluation") if "accuracy" in record}
    said = [f"{step} ({measured[step]:.3f})" if step in measured else str(step) for step in folders]
    return f"Steps with a checkpoint (held-out accuracy): {', '.join(said) or 'none'}."
