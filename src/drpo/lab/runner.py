"""Brings the runs of a study to an end, several at a time; workers say where they are executed.

Nothing is lost with the runner: every run is a process of its own that checkpoints, and what happened is read from the
run directories and the journal. A run that crashes is recorded with its reason and not tried again unasked; one that is
lost with its machine stays as it is until the next runner, as it may live on where it cannot be seen.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from drpo.child_process import WRITE_REFUSED
from drpo.errors import ConfigError, WriteError
from drpo.files import remove_folder
from drpo.lab.directory import GO_ON, Hold, State, StudyDirectory
from drpo.lab.plan import Run
from drpo.lab.workers import POLL, Ended, Execution, Workers
from drpo.run_directory import RunDirectory

#: Seconds between looks at how far the runs are.
SHOW = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a phase is: runs by status, those at work with the steps they have sampled, and the seconds left (None:
    not known yet)."""

    total: int
    finished: int
    failed: int
    active: list[tuple[Run, int]]
    seconds_left: float | None


class Watcher:
    """Override what you want to see."""

    def on_note(self, text: str) -> None:
        """Something the user should know."""

    def on_start(self, run: Run, resumed: bool) -> None:
        """A run was started."""

    def on_end(self, run: Run, state: State) -> None:
        """A run ended, and stands so."""

    def on_progress(self, progress: Progress) -> None:
        """Now and then."""


@dataclass
class _Active:
    execution: Execution
    slot: int
    asked_to_stop: bool = False
    started: float = field(default_factory=time.monotonic)


class Runner:
    """Runs what is not finished; ``stopping`` says that it was asked to stop."""

    def __init__(
        self, directory: StudyDirectory, workers: Workers, watcher: Watcher, hold: Hold, keep_checkpoints: bool = False
    ):
        self.directory, self.workers, self.watcher, self.hold = directory, workers, watcher, hold
        self.keep_checkpoints = keep_checkpoints
        self.active: dict[Run, _Active] = {}
        self.signals = 0
        self.refusal = self.full = ""

    @property
    def stopping(self) -> bool:
        """Whether a signal asked to stop, or a place where runs cannot be, or a disk that takes no more."""
        return self.signals > 0 or bool(self.refusal or self.full)

    def run(self, runs: Sequence[Run], retry_failed: bool = False) -> dict[Run, State]:
        """Bring every one of ``runs`` to an end, and return how they stand; fewer of them once asked to stop.

        Raises:
            ConfigError: a kept run is not of this study, or a place where a run was to start is not fit for it.
            WriteError: the disk refused a write, of the study or of a run; the runs at work have ended, and the same
                runs go on once it does not.
        """
        states = self.directory.states(list(runs))
        self.directory.check_kept(list(runs))
        for run, state in states.items():
            self._tidy(run, state)
        done = {"finished"} if retry_failed else {"finished", "failed"}
        clock = _Clock([run for run, state in states.items() if state.status not in done], self.directory)
        queue, shown = deque(clock.runs), 0.0
        while self.active or (queue and not self.stopping):
            while queue and not self.stopping and len(self.active) < self.workers.jobs:
                self._start(queue.popleft())
            self._stop_if_asked()
            for run, active in list(self.active.items()):
                if (ended := active.execution.ended()) is not None:
                    states[run] = self._end(run, ended)
            if time.monotonic() - shown > SHOW:
                shown = time.monotonic()
                self.watcher.on_progress(self._progress(states, clock))
            time.sleep(POLL)
        self.watcher.on_progress(self._progress(states, clock))
        if self.full:
            raise WriteError(f"{self.full}\nThe study stopped, and no run is lost. {GO_ON}")
        if self.refusal:
            raise ConfigError(self.refusal)
        return states

    def _start(self, run: Run) -> None:
        try:
            self._launch(run)
        except WriteError as error:
            self.full = self.full or str(error)

    def _launch(self, run: Run) -> None:
        resume = RunDirectory(self.directory.path / run.path).exists()
        command = run.arguments(self.directory.path, resume)
        slot = min(set(range(self.workers.jobs)) - {active.slot for active in self.active.values()})
        if not resume:
            self.directory.write_config(run)
        with self.directory.writing():
            execution = self.workers.start(command, self.directory.log_file(run), self.directory, self.hold, slot)
        self.active[run] = _Active(execution, slot)
        self.directory.write_entry(
            "started", run, **execution.place, command=["drpo", *command], threads=self.workers.threads, at=time.time()
        )
        self.watcher.on_start(run, resume)

    def _end(self, run: Run, ended: Ended) -> State:
        active = self.active.pop(run)
        reason = self.directory.reason(run, ended.code) if ended.code else ended.lost
        if ended.code == WRITE_REFUSED:
            self.full = self.full or reason
        event = "stopped" if self.stopping else "lost" if ended.code is None else "ended"
        self.refusal = self.refusal or (ended.lost if ended.refused else "")
        try:
            self.directory.write_entry(
                event, run, exit=ended.code, reason=reason or None, seconds=time.monotonic() - active.started
            )
        except WriteError as error:
            self.full = self.full or str(error)
        state = self.directory.states([run])[run]
        self._tidy(run, state)
        self.watcher.on_end(run, state)
        return state

    def _stop_if_asked(self) -> None:
        for active in self.active.values():
            if self.signals > 1:
                active.execution.kill()
            elif self.stopping and not active.asked_to_stop:
                active.asked_to_stop = True
                active.execution.stop()

    def _tidy(self, run: Run, state: State) -> None:
        """A study has hundreds of runs, and its results need no weights."""
        checkpoints = RunDirectory(self.directory.path / run.path).checkpoints
        if state.status == "finished" and not self.keep_checkpoints:
            with self.directory.writing():
                remove_folder(checkpoints)

    def _progress(self, states: dict[Run, State], clock: _Clock) -> Progress:
        at = {run: clock.sampled(run) for run in self.active}
        count = [state.status for run, state in states.items() if run not in self.active].count
        return Progress(len(states), count("finished"), count("failed"), list(at.items()), clock.left(states, at))

    @contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """The first SIGINT, SIGTERM or SIGHUP lets every run finish its step and checkpoint, a second one kills."""

        def handle(number: int, frame: Any) -> None:
            self.signals += 1

        watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, handle) for number in watched}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Clock:
    """The time left, from the steps that were done since the start."""

    def __init__(self, runs: list[Run], directory: StudyDirectory):
        self.runs, self.directory, self.started = runs, directory, time.monotonic()
        self.before = {run: self.sampled(run) for run in runs}

    def sampled(self, run: Run) -> int:
        return RunDirectory(self.directory.path / run.path).steps_sampled()

    def left(self, states: dict[Run, State], active: dict[Run, int]) -> float | None:
        """Seconds, as if all steps took as long."""
        done = left = 0
        for run in self.runs:
            ended = run not in active and states[run].status in ("finished", "failed")
            step = run.config.steps if ended else active.get(run, self.before[run])
            done, left = done + step - self.before[run], left + run.config.steps - step
        return left * (time.monotonic() - self.started) / done if done else None
