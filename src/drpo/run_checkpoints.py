"""Which checkpoints a run holds, and which of them is the best by held-out accuracy.

A folder ``step-`` and six digits or more is ours. Whatever else stands beside it was put there by somebody, and is left
alone; so is a checkpoint that is being written or removed, which has another name until it is whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from drpo.run_directory import RunDirectory

Record = dict[str, Any]

_NAME = re.compile(r"step-(\d{6,15})")


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after ``step``."""
    return f"step-{step:06d}"


def checkpoint_folders(folder: Path) -> dict[int, Path]:
    """Step → checkpoint, of each one in ``folder``, in order of step."""
    if not folder.is_dir():
        return {}
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def step_of(checkpoint: Path) -> int | None:
    """The step in the name of a checkpoint; None for a folder of another name."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else None


def best_evaluation(evaluations: Iterable[Record], steps: Collection[int]) -> Record | None:
    """The evaluation with the highest accuracy among those after one of ``steps``; the earliest of equal ones.

    Args:
        evaluations: of a run, in order of step.
        steps: those that have a checkpoint.
    """
    measured = [record for record in evaluations if record["step"] in steps and _is_finite(record.get("accuracy"))]
    return max(measured, key=lambda record: record["accuracy"], default=None)


def best_checkpoint(run: RunDirectory) -> Record | None:
    """The evaluation of the best checkpoint that ``run`` holds; None if no checkpoint of its was evaluated.

    Raises:
        DataError: metrics.jsonl is damaged. SchemaError: a newer version wrote it.
    """
    return best_evaluation(run.read_metrics("evaluation"), checkpoint_folders(run.checkpoints).keys())


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
