"""Feeds a run's trackers with what its observer is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

from drpo.errors import DrpoError, TrackingError
from drpo.run_directory import RunDirectory
from drpo.trackers import Response, TrackedRun, Tracker, flat_scalars, updates_done
from drpo.train.config import TrainConfig
from drpo.train.observer import Forwarding, Observer

#: Responses in the table of an evaluation: the first sample of as many prompts.
MOST_RESPONSES = 16
#: Steps in a row beyond the trust region that are an alert.
BEYOND_STEPS = 3


class Tracking(Forwarding):
    """Passes everything on to ``observer``; to ``trackers`` (name → started tracker) the metrics records, a table of
    responses an evaluation, alerts, and at the end the report, if ``observer`` has written one.

    A tracker that fails is named in a note and left out from then on; training goes on.
    """

    def __init__(self, observer: Observer, trackers: dict[str, Tracker], run: RunDirectory, updates_per_step: int):
        super().__init__(observer)
        self.trackers, self.run, self.updates_per_step = dict(trackers), run, updates_per_step
        self.shown = self.steps_beyond = 0

    def on_step(self, records: list[dict[str, Any]]) -> None:
        super().on_step(records)
        for record in records:
            self.log(record)
        beyond = any(record["shift_p99"] > record["delta"] for record in records)
        self.steps_beyond = self.steps_beyond + 1 if beyond else 0
        if self.steps_beyond == BEYOND_STEPS:
            self.alert(
                "The policy moves too far",
                f"In the last {BEYOND_STEPS} steps |π − μ| was beyond δ = {records[-1]['delta']:g} on more than 1 % of "
                "the tokens of an update. Lower learning_rate or updates_per_step.",
            )

    def on_evaluation(self, record: dict[str, Any]) -> None:
        super().on_evaluation(record)
        self.log(record, self.responses(record["step"]))

    def on_warning(self, text: str) -> None:
        super().on_warning(text)
        self.alert("Warning", text)

    def on_end(self, status: str) -> None:
        try:
            super().on_end(status)
            self.say_how_it_ended(status)
        finally:  # also where the report cannot be written
            self.tell(lambda tracker: tracker.finish(status))

    def say_how_it_ended(self, status: str) -> None:
        """An alert if it ended badly, and the report."""
        manifest = self.run.read_manifest()
        outcome = manifest.get("outcome") or {}
        if status == "failed":
            self.alert("The run failed", str(manifest.get("failure") or "No reason is known."))
        elif outcome.get("kind") == "worse":
            said = (outcome.get(part) for part in ("sentence", "reason", "try_next"))
            self.alert("Held-out accuracy got worse", " ".join(filter(None, said)))
        if self.run.report_file.is_file():
            self.tell(lambda tracker: tracker.keep(self.run.report_file))

    def log(self, record: dict[str, Any], responses: Sequence[Response] = ()) -> None:
        """Show one record in every tracker."""
        self.shown, scalars = updates_done(record, self.updates_per_step), flat_scalars(record)
        self.tell(lambda tracker: tracker.log(self.shown, scalars, responses))

    def alert(self, title: str, text: str) -> None:
        """Raise one in every tracker, at the newest step."""
        self.tell(lambda tracker: tracker.alert(self.shown, title, text))

    def responses(self, step: int) -> list[Response]:
        """The first sample of each of the first prompts of an evaluation."""
        firsts: dict[tuple[str, str], Response] = {}
        for record in self.run.read_rollouts("evaluation", step).get(step, ()):
            prompt, answer = str(record["prompt"]), str(record["answer"])
            response = (prompt, answer, str(record["text"]), record["reward"], str(record["stop_reason"]))
            firsts.setdefault((prompt, answer), response)
        return list(firsts.values())[:MOST_RESPONSES]

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
    # A run begins with an evaluation, at 0 or where a branch begins; a resumed one has the one at its step already.
    first = step * config.updates_per_step + bool(step and resumed)
    tracked = TrackedRun(run.path, run_id, config.project or "drpo", config.resolved(), resumed, first)
    untouched = [folder for folder in (run.path, *(run.path / name for name in trackers)) if not folder.exists()]
    for count, (name, tracker) in enumerate(trackers.items()):
        try:
            where = tracker.start(tracked)
        except Exception as error:
            started = dict(list(trackers.items())[:count])
            Tracking(observer, started, run, config.updates_per_step).tell(lambda tracker: tracker.finish("failed"))
            for folder in untouched:
                shutil.rmtree(folder, ignore_errors=True)
            reason = str(error) if isinstance(error, DrpoError) else f"{type(error).__name__}: {error}"
            raise TrackingError(
                f"trackers: {name} cannot start: {reason}\nFix that, or leave {name} out of trackers."
            ) from error
        observer.on_note(f"{name}: {where}")
    return Tracking(observer, trackers, run, config.updates_per_step) if trackers else observer
