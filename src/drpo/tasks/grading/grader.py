"""Grading in processes that can be killed: no reward function can stop, hang or end a run."""

from __future__ import annotations

import math
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from drpo.errors import ConfigError, DataError, TaskError
from drpo.tasks.base import Example, Task
from drpo.tasks.grading.process import START_LIMIT, Died, GradingProcess

#: Time limits that the responses of one batch may use up before others of their kinds are not tried any more.
TIMEOUTS = 3
#: Kinds of responses that took too long which are remembered.
_KINDS = 1000


@dataclass(frozen=True, slots=True)
class Grade:
    """A reward in [0, 1], or why there is none. A failure is not a 0: it says nothing of the response.

    ``timeout`` says why a response is wrong (reward 0) that takes too long to grade.
    """

    reward: float | None
    failure: str | None = None
    timeout: str | None = None


@dataclass(slots=True)
class _Seat:
    """A grading process and what it is at: loading the task, idle, or a job that ends by ``deadline``.

    ``prepared``: the task has read the job's example, so that the time which is left is the response's."""

    process: GradingProcess
    deadline: float
    ready: bool = False
    job: int | None = None
    prepared: bool = False

    def free(self) -> bool:
        return self.ready and self.job is None


class Grader:
    """Grades responses with ``task.reward`` in processes of its own.

    A reward that raises or is no number in [0, 1] is a failure of that response. One that takes too long, or
    ends its process, is too; a new process takes the place of that one while the others go on.

    A task with the methods ``prepare_example(example)`` and ``answer_kind(text)`` tells a response that takes too long
    from a task that hangs. The first is called before every reward, under a time limit of its own; a response that
    takes too long after it is wrong (:attr:`Grade.timeout`), if the second names a kind for it and not None. Once the
    responses of a batch have used up ``TIMEOUTS`` time limits, others of their kinds are wrong without being tried.

    Use a grader from one thread (on Linux the processes end with the thread that started them), as a context manager::

        with Grader(task, workers=2) as grader:
            grades = grader.grade(examples, texts)

    Args:
        task: picklable, of a class that can be imported. If it has a method ``prepare_grading()``, every process
            calls that once before it grades: to import what is slow to import, or to bound its own memory.
        time_limit: seconds that one response may take.
        workers: how many processes, ≥ 1.

    Raises:
        ConfigError: the time limit is not a positive number, or there is no worker.
        TaskError: the task cannot be pickled.
    """

    def __init__(self, task: Task, time_limit: float = 10.0, workers: int = 1):
        if not 0 < time_limit < math.inf:
            raise ConfigError(f"time_limit must be a positive number of seconds, got {time_limit!r}")
        if workers < 1:
            raise ConfigError(f"workers is the number of grading processes, 1 or more; got {workers!r}")
        self.task = task
        self.time_limit = time_limit
        self.workers = workers
        self._starts = 0
        self._task = _pickled_task(task)
        self._seats: list[_Seat] = []
        self._arrivals: queue.SimpleQueue[tuple[GradingProcess, bytes]] = queue.SimpleQueue()
        self._kind: Callable[[str], str | None] | None = getattr(task, "answer_kind", None)
        self._slow_kinds: dict[str, None] = {}
        self._timeouts = 0

    @contextmanager
    def loading(self) -> Iterator[Self]:
        """While this is entered there are processes, which load the task beside whatever else happens; nothing waits
        for them until the grader itself is entered, or grades."""
        try:
            self._start()
            yield self
        finally:
            self.close()

    def __enter__(self) -> Self:
        try:
            self._start()
            while not all(seat.ready for seat in self._seats):
                self._await_event([], [])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def restarts(self) -> int:
        """How often a process was started again."""
        return max(0, self._starts - self.workers)

    def grade(self, examples: Sequence[Example], texts: Sequence[str]) -> list[Grade]:
        """The grade of each response, in order. Starts the processes if none are running.

        Args:
            examples: [B], what was asked.
            texts: [B], the responses.

        Raises:
            DataError: the two lengths differ.
            TaskError: an example cannot be pickled, or a process cannot load the task.
        """
        if len(examples) != len(texts):
            raise DataError(
                f"grading needs one response for each example, got {len(texts)} responses for {len(examples)} examples"
            )
        jobs = [_pickled_job(example, text) for example, text in zip(examples, texts, strict=True)]
        grades: list[Grade | None] = [None] * len(jobs)
        waiting = deque(enumerate(jobs))
        self._timeouts = 0
        try:
            self._start()
            while waiting or any(seat.job is not None for seat in self._seats):
                self._pass_over_slow(waiting, texts, grades)
                for seat in self._seats:
                    if waiting and seat.free():
                        self._give(seat, *waiting.popleft())
                if any(not seat.free() for seat in self._seats):
                    self._await_event(grades, texts)
        except BaseException:
            # Replies of this batch that are still to come must not be taken for those of the next.
            self.close()
            raise
        assert all(grades)
        return [grade for grade in grades if grade is not None]

    def close(self) -> None:
        """End the processes. Another call of ``grade`` starts new ones."""
        for seat in self._seats:
            seat.process.kill()
        self._seats = []

    def _start(self) -> None:
        """Every seat has a process, those that ended between two batches included."""
        for seat in [seat for seat in self._seats if seat.free() and not seat.process.running()]:
            self._replace(seat)
        while len(self._seats) < self.workers:
            self._seats.append(self._new_seat())

    def _new_seat(self) -> _Seat:
        self._starts += 1
        return _Seat(GradingProcess(self._task, self._arrivals), time.monotonic() + START_LIMIT)

    def _replace(self, seat: _Seat) -> None:
        seat.process.kill()
        self._seats[self._seats.index(seat)] = self._new_seat()

    def _pass_over_slow(
        self, waiting: deque[tuple[int, bytes]], texts: Sequence[str], grades: list[Grade | None]
    ) -> None:
        """Once the batch has used up its time limits, grade responses at the head of the queue whose kind is slow."""
        while waiting and self._kind is not None and self._timeouts >= TIMEOUTS:
            index = waiting[0][0]
            if self._kind(texts[index]) not in self._slow_kinds:
                return
            reason = f"not tried: answers of this kind took longer than {self.time_limit:g} s"
            grades[index] = Grade(0.0, timeout=reason)
            waiting.popleft()

    def _overdue(self, seat: _Seat, text: str) -> Grade:
        """The grade of a response that took too long: wrong where that is its own fault."""
        reason = f"no reward within {self.time_limit:g} s; process ended"
        kind = self._kind(text) if seat.prepared and self._kind is not None else None
        if kind is None:
            return Grade(None, reason)
        self._timeouts += 1
        self._slow_kinds[kind] = None
        if len(self._slow_kinds) > _KINDS:
            del self._slow_kinds[next(iter(self._slow_kinds))]
        return Grade(0.0, timeout=reason)

    def _give(self, seat: _Seat, index: int, job: bytes) -> None:
        seat.job, seat.prepared, seat.deadline = index, False, time.monotonic() + self.time_limit
        seat.process.send(job)

    def _await_event(self, grades: list[Grade | None], texts: Sequence[str]) -> None:
        """Wait for a line of any process, or for a deadline, and act on it; a job that ends leaves its grade."""
        deadline = min((seat.deadline for seat in self._seats if not seat.free()), default=0.0)
        try:
            patience = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
            process, line = self._arrivals.get(timeout=patience)
        except queue.Empty:
            self._end_overdue(grades, texts)
            return
        for seat in self._seats:
            if seat.process is process:  # or else it was ended before its line was read
                self._take(seat, line, grades)
                return

    def _take(self, seat: _Seat, line: bytes, grades: list[Grade | None]) -> None:
        if not seat.ready:
            seat.process.check_ready(line)
            seat.ready = True
            return
        job = seat.job
        try:
            reply = seat.process.reply(line)
        except Died as death:
            self._replace(seat)
            if job is not None:
                grades[job] = Grade(None, str(death))
            return
        if "prepared" in reply:
            seat.prepared, seat.deadline = True, time.monotonic() + self.time_limit
            return
        if job is not None:
            grades[job], seat.job = Grade(reply["reward"], reply["failure"]), None
        if "spent" in reply:
            self._replace(seat)

    def _end_overdue(self, grades: list[Grade | None], texts: Sequence[str]) -> None:
        now = time.monotonic()
        for seat in [seat for seat in self._seats if not seat.free() and seat.deadline <= now]:
            if seat.job is None:
                raise TaskError(
                    f"the grading process did not load the task within {START_LIMIT:.0f} s. Make "
                    "importing and unpickling it faster."
                )
            grades[seat.job] = self._overdue(seat, texts[seat.job])
            self._replace(seat)


def _pickled_task(task: Task) -> bytes:
    if type(task).__module__ == "__main__":
        raise TaskError(
            f"the class {type(task).__name__} of the task is defined in the program that was "
            "started, which the grading process does not run. Move it to a module and import it "
            "from there."
        )
    try:
        return pickle.dumps(task)
    except Exception as error:
        raise TaskError(
            f"the task cannot be sent to the grading process: {type(error).__name__}: {error}. "
            "Its class must be defined at the top level of a module, and its state "
            "picklable."
        ) from error


def _pickled_job(example: Example, text: str) -> bytes:
    try:
        return pickle.dumps((example, text))
    except Exception as error:
        raise TaskError(
            f"an example cannot be sent to the grading process: {type(error).__name__}: {error}. "
            "What its `data` holds must be picklable."
        ) from error
