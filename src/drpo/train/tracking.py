"""Feeds a run's trackers with what its observer is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drpo.errors import DrpoError, TrackingError
from drpo.run_directory import RunDirectory
from drpo.trackers import TrackedRun, Tracker, flat_scalars, updates_done
from drpo.train.config import TrainConfig
from drpo.train.observer import Observer


class Tracking(Observer):
    """Passes everything on to ``observer``, and every metrics record to ``trackers`` (name → started tracker).

    A tracker that fails is named in a note and left out from then on; training goes on.
    """

    def __init__(self, observer: Observer, trackers: dict[str, Tracker], updates_per_step: int):
        self.observer, self.trackers, self.updates_per_step = observer, dict(trackers), updates_per_step

    def on_start(self, config: TrainConfig, run: RunDirectory, step: int) -> None:
        self.observer.on_start(config, run, step)

    def on_step(self, records: list[dict[str, Any]]) -> None:
        self.observer.on_step(records)
        for record in records:
            self.log(record)

    def on_evaluation(self, record: dict[str, Any]) -> None:
        self.observer.on_evaluation(record)
        self.log(record)

    def on_checkpoint(self, path: Path) -> None:
        self.observer.on_checkpoint(path)

    def on_note(self, text: str) -> None:
        self.observer.on_note(text)

    def on_end(self, status: str) -> None:
        self.observer.on_end(status)
        self.tell(lambda tracker: tracker.finish(status))

    def log(self, record: dict[str, Any]) -> None:
        """Show one record in every tracker."""
        step, scalars = updates_done(record, self.updates_per_step), flat_scalars(record)
        self.tell(lambda tracker: tracker.log(step, scalars))

    def tell(self, message: Callable[[Tracker], None]) -> None:
        """Give ``message`` to every tracker that still works."""
        for name, tracker in list(self.trackers.items()):
            try:
                message(tracker)
            except Exception as error:
                del self.trackers[name]
                self.on_note(
                    f"{name} failed and is not used again in this run ({type(error).__name__}: {error}); training "
                    "goes on, and metrics.jsonl has every figure"
                )


def start_tracking(
    trackers: dict[str, Tracker],
    config: TrainConfig,
    run: RunDirectory,
    run_id: str,
    observer: Observer,
    step: int,
    resumed: bool,
) -> Observer:
    """Start ``trackers`` on a run that stands after ``step``; the observer that feeds them too.

    Raises:
        TrackingError: one cannot start; the others are closed, and a new run's directory is as it was.
    """
    # Before any step comes an evaluation at 0; a resumed run has the one at its step already.
    first = step * config.updates_per_step + 1 if step else 0
    tracked = TrackedRun(run.path, run_id, config.project or "drpo", config.resolved(), resumed, first)
    untouched = [folder for folder in (run.path, *(run.path / name for name in trackers)) if not folder.exists()]
    for count, (name, tracker) in enumerate(trackers.items()):
        try:
            where = tracker.start(tracked)
        except Exception as error:
            Tracking(observer, dict(list(trackers.items())[:count]), config.updates_per_step).on_end("failed")
            for folder in untouched:
                shutil.rmtree(folder, ignore_errors=True)
            reason = str(error) if isinstance(error, DrpoError) else f"{type(error).__name__}: {error}"
            raise TrackingError(
                f"trackers: {name} cannot start: {reason}\nFix that, or leave {name} out of trackers."
            ) from error
        observer.on_note(f"{name}: {where}")
    return Tracking(observer, trackers, config.updates_per_step) if trackers else observer
