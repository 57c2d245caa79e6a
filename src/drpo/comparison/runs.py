"""The runs that are compared, read from their directories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import DataError
from drpo.intervals import accuracy_interval
from drpo.lab.metrics import by_step, measured_seconds
from drpo.run_directory import RunDirectory

Record = dict[str, Any]

#: Curves over steps: figure of the updates → title. Held-out accuracy comes first, from the evaluations.
COURSES = {
    "reward": "Mean training reward",
    "shift_p99": "p99 of |π − μ|",
    "beyond_delta": "Tokens beyond δ",
    "entropy": "Entropy",
    "response_length": "Response length",
    "gradient_norm": "Gradient norm",
}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Held-out accuracy after ``step`` with its 95 % confidence interval over the problems."""

    step: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run. ``settings`` has dotted keys; ``curves`` maps each figure to its (step, value)."""

    path: Path
    name: str
    status: str
    seed: int | None
    settings: Mapping[str, Any]
    accuracies: Sequence[Accuracy]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    steps: int
    updates: int
    tokens: int
    seconds: float
    outcome: str

    @property
    def last(self) -> Accuracy | None:
        """The last evaluation."""
        return self.accuracies[-1] if self.accuracies else None

    @property
    def best(self) -> Accuracy | None:
        """The best evaluation, the earliest of equal ones."""
        return max(self.accuracies, key=lambda found: found.value) if self.accuracies else None

    @property
    def late_reward(self) -> float | None:
        """Mean training reward over the second half of the steps."""
        rewards = [value for _, value in self.curves["reward"]]
        half = rewards[len(rewards) // 2 :]
        return sum(half) / len(half) if half else None


def find_runs(paths: Iterable[Path]) -> list[RunDirectory]:
    """The runs that ``paths`` mean: run directories, and directories that hold some at any depth; each one once.

    Raises:
        DataError: a path does not exist, or holds no run.
    """
    found: dict[Path, RunDirectory] = {}
    for path in paths:
        if not path.exists():
            raise DataError(
                f"{path} does not exist. Give run directories, or a directory of them; objectives are compared by "
                "`drpo lab compare`."
            )
        inside = list(_inside(path))
        if not inside:
            raise DataError(
                f"{path} holds no run (no config.yaml). Give the directories that `drpo train` printed, or a directory "
                "of them."
            )
        for run in inside:
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def _inside(path: Path) -> Iterator[RunDirectory]:
    run = RunDirectory(path)
    if run.exists():
        yield run
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_dir() and not child.name.startswith(".") and not child.is_symlink():
                yield from _inside(child)


def read_run(run: RunDirectory) -> ComparedRun:
    """Read one run, finished or not.

    Raises:
        CheckpointError: its configuration is damaged. DataError: another of its files is.
    """
    config, manifest = run.read_config(), run.read_manifest()
    updates, evaluations = run.read_measured()
    evaluations.sort(key=lambda record: record["step"])
    outcome = manifest.get("outcome")
    return ComparedRun(
        path=run.path,
        name=run.path.resolve().name,
        status=str(manifest.get("status") or "unknown"),
        seed=config.get("seed") if isinstance(config.get("seed"), int) else None,
        settings=dict(flat(config)),
        accuracies=[found for record in evaluations if (found := _accuracy(record)) is not None],
        curves={name: sorted(by_step(name, updates)) for name in COURSES},
        steps=max((record["step"] for record in updates), default=0),
        updates=len(updates),
        tokens=sum(record["tokens"] for record in updates),
        seconds=measured_seconds(updates, evaluations),
        outcome=str(outcome.get("sentence", "")) if isinstance(outcome, Mapping) else "",
    )


def _accuracy(record: Record) -> Accuracy | None:
    """As the evaluation recorded it: the interval is over problems where there is one, else over samples."""
    interval = accuracy_interval(record)
    if record.get("accuracy") is None or interval is None:
        return None
    return Accuracy(record["step"], record["accuracy"], *interval)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; lists as JSON, so that values compare."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
