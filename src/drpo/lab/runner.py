"""Runs of a study as `drpo train` processes, several at a time.

Nothing is lost with the runner: every run is a process of its own that checkpoints, and what happened is read from the
run directories and the journal. A run that crashes is recorded with its reason and not tried again unasked.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from drpo.lab.directory import State, StudyDirectory
from drpo.lab.plan import Run
from drpo.run_directory import RunDirectory

#: Seconds between looks at the processes, and between looks at how far they are.
POLL, SHOW = 0.1, 1.0


@dataclass(frozen=True)
class Workers:
    """What runs at once: ``jobs`` processes of ``threads`` threads, on ``devices`` (CUDA's names) in turn."""

    jobs: int
    threads: int
    devices: Sequence[str] = ()
    program: Sequence[str] = (sys.executable, "-m", "drpo")

    @classmethod
    def here(cls, jobs: int | None = None) -> Workers:
        """As many as this machine has GPUs, or else cores; its cores are shared out among them."""
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
        devices = names if torch.cuda.is_available() else []
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = jobs or len(devices) or cores
        return cls(jobs, max(1, cores // jobs), devices)

    def environment(self, slot: int) -> dict[str, str]:
        """The environment of the process in that slot."""
        changes = {"OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1"}
        if self.devices:
            changes["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        return os.environ | changes


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
        """A process was started."""

    def on_end(self, run: Run, state: State) -> None:
        """A process ended, and the run stands so."""

    def on_progress(self, progress: Progress) -> None:
        """Now and then."""


@dataclass
class _Active:
    process: subprocess.Popen[bytes]
    slot: int
    asked_to_stop: bool = False
    started: float = field(default_factory=time.monotonic)


class Runner:
    """Runs what is not finished; ``stopping`` says that it was asked to stop."""

    def __init__(self, directory: StudyDirectory, workers: Workers, watcher: Watcher, lock: int,
                 keep_checkpoints: bool = False):  # fmt: skip
        self.directory, self.workers, self.watcher, self.lock = directory, workers, watcher, lock
        self.keep_checkpoints = keep_checkpoints
        self.active: dict[Run, _Active] = {}
        self.signals = 0

    @property
    def stopping(self) -> bool:
        """Whether a signal asked to stop."""
        return self.signals > 0

    def run(self, runs: Sequence[Run], retry_failed: bool = False) -> dict[Run, State]:
        """Bring every one of ``runs`` to an end, and return how they stand; fewer of them once asked to stop."""
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
            for run in [run for run, active in self.active.items() if active.process.poll() is not None]:
                states[run] = self._end(run)
            if time.monotonic() - shown > SHOW:
                shown = time.monotonic()
                self.watcher.on_progress(self._progress(states, clock))
            time.sleep(POLL)
        self.watcher.on_progress(self._progress(states, clock))
        return states

    def _start(self, run: Run) -> None:
        resume = RunDirectory(self.directory.path / run.path).exists()
        command = run.arguments(self.directory.path, resume)
        slot = min(set(range(self.workers.jobs)) - {active.slot for active in self.active.values()})
        log = self.directory.log_file(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            # A group of its own: Ctrl-C at a terminal reaches the runner alone, which then stops the runs.
            process = subprocess.Popen(
                [*self.workers.program, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self.workers.environment(slot), pass_fds=(self.lock,), process_group=0,
            )  # fmt: skip
        self.active[run] = _Active(process, slot)
        self.directory.write_entry("started", run, pid=process.pid, command=["drpo", *command],
                                   threads=self.workers.threads, at=time.time())  # fmt: skip
        self.watcher.on_start(run, resume)

    def _end(self, run: Run) -> State:
        active = self.active.pop(run)
        code = active.process.wait()
        reason = self.directory.reason(run, code) if code else None
        self.directory.write_entry("stopped" if self.stopping else "ended", run, exit=code, reason=reason,
                                   seconds=time.monotonic() - active.started)  # fmt: skip
        state = self.directory.states([run])[run]
        self._tidy(run, state)
        self.watcher.on_end(run, state)
        return state

    def _stop_if_asked(self) -> None:
        for active in self.active.values():
            if self.signals > 1:
                with suppress(ProcessLookupError):
                    os.killpg(active.process.pid, signal.SIGKILL)
            elif self.stopping and not active.asked_to_stop:
                active.asked_to_stop = True
                active.process.terminate()

    def _tidy(self, run: Run, state: State) -> None:
        """A study has hundreds of runs, and its results need no weights."""
        checkpoints = RunDirectory(self.directory.path / run.path).checkpoints
        if state.status == "finished" and not self.keep_checkpoints and checkpoints.exists():
            shutil.rmtree(checkpoints)

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
