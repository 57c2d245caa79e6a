"""What a run recorded, as series by step. Any key may be missing and any figure null."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drpo.report.html.quantities import finite
from drpo.report.svg.points import Point, known, summarize
from drpo.run_checkpoints import checkpoint_folders
from drpo.run_directory import RunDirectory

Record = dict[str, Any]


@dataclass(frozen=True)
class History:
    """A run in memory, its records in order of step."""

    name: str
    config: Record
    manifest: Record
    updates: list[Record]
    evaluations: list[Record]
    #: Step → sampled held-out responses.
    held_out: dict[int, list[Record]]
    #: Step → sampled training responses; read only where no held-out ones were kept, as they may be many.
    training: dict[int, list[Record]]
    #: The steps that have a checkpoint.
    checkpoints: frozenset[int] = frozenset()

    @classmethod
    def read(cls, run: RunDirectory) -> History:
        """Read all of ``run``.

        Raises:
            CheckpointError: there is no run.
            DataError: one of its files is malformed.
        """
        config = run.read_config() or {}
        held_out = run.read_rollouts("evaluation")
        return cls(
            name=run.path.resolve().name,
            config=config,
            manifest=run.read_manifest(),
            updates=sorted(run.read_metrics("update"), key=lambda record: (record["step"], record.get("update", 0))),
            evaluations=sorted(run.read_metrics("evaluation"), key=lambda record: record["step"]),
            held_out=held_out,
            training={} if held_out else run.read_rollouts("step"),
            checkpoints=frozenset(checkpoint_folders(run.checkpoints)),
        )

    @property
    def steps_done(self) -> int:
        """The last step with an update; 0 if there is none."""
        return self.updates[-1]["step"] if self.updates else 0

    @property
    def steps_planned(self) -> int | None:
        """What the configuration asked for."""
        planned = finite(self.config.get("steps"))
        return None if planned is None else int(planned)

    @property
    def last_step(self) -> int:
        """The last step with any record."""
        return max(self.steps_done, self.evaluations[-1]["step"] if self.evaluations else 0)

    @property
    def delta(self) -> float | None:
        """The δ that the recorded shares refer to."""
        return next((finite(record.get("delta")) for record in reversed(self.updates)), None)

    @property
    def outcome(self) -> Mapping[str, Any]:
        """What the manifest says the run came to; empty for a run that has not ended, or of an older version."""
        found = self.manifest.get("outcome")
        return found if isinstance(found, Mapping) else {}

    def by_step(self, key: str) -> list[Point]:
        """Mean and range over the updates of each step, of a dotted ``key``."""
        return self._grouped(key, lambda record: record["step"])

    def highest(self, key: str) -> list[Point]:
        """The largest over the updates of each step: maxima must not be averaged."""
        return [Point(point.x, point.high, None, None) for point in self.by_step(key)]

    def lowest(self, key: str) -> list[Point]:
        """The smallest over the updates of each step."""
        return [Point(point.x, point.low, None, None) for point in self.by_step(key)]

    def average(self, key: str) -> list[Point]:
        """The mean over the updates of each step, without its range."""
        return [Point(point.x, point.value, None, None) for point in self.by_step(key)]

    def by_update(self, key: str) -> list[Point]:
        """Mean and range over all steps of the first, second, … update within a step; counted from 1."""
        return self._grouped(key, lambda record: record.get("update", 0) + 1)

    def summed_by_step(self, key: str) -> list[Point]:
        """The sum over the updates of each step, as times want it."""
        groups = self._groups(key, lambda record: record["step"])
        return [Point(x, sum(values) if values else None, None, None) for x, values in groups.items()]

    def by_evaluation(self, key: str) -> list[Point]:
        """``key`` of each evaluation."""
        return [Point(record["step"], value_of(record, key), None, None) for record in self.evaluations]

    def values(self, key: str) -> list[float]:
        """The figures of all updates that have one."""
        found = (value_of(record, key) for record in self.updates)
        return [value for value in found if value is not None]

    def _grouped(self, key: str, group: Callable[[Record], int]) -> list[Point]:
        return [summarize(x, values) for x, values in self._groups(key, group).items()]

    def _groups(self, key: str, group: Callable[[Record], int]) -> dict[int, list[float]]:
        groups: dict[int, list[float]] = defaultdict(list)
        for record in self.updates:
            value = value_of(record, key)
            groups[group(record)].extend([] if value is None else [value])
        return dict(sorted(groups.items()))


def value_of(record: Record, key: str) -> float | None:
    """The finite number under the dotted ``key``, or None."""
    value: Any = record
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return finite(value)


def failed_rewards(history: History) -> float:
    """Responses whose reward could not be computed, in training and in evaluation."""
    return sum(value_of(record, "failed_rewards") or 0.0 for record in (*history.updates, *history.evaluations))


def time_by_part(history: History) -> dict[str, float]:
    """Seconds spent in each part of the run, as far as they were recorded."""
    return {
        **{part: sum(history.values(f"timing.{part}")) for part in ("sampling", "grading", "training")},
        "evaluation": sum(known(history.by_evaluation("timing.seconds"))),
    }
