"""Grading in a process that can be killed: no reward function can stop, hang or end a run."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from drpo.errors import ConfigError, DataError, TaskError
from drpo.tasks.base import Example, Task
from drpo.tasks.grading_process import Died, GradingProcess, TimedOut


@dataclass(frozen=True, slots=True)
class Grade:
    """A reward in [0, 1], or why there is none. A failure is not a 0: it says nothing of the response."""

    reward: float | None
    failure: str | None = None


class Grader:
    """Grades responses with ``task.reward`` in one process of its own.

    A reward that raises or is no number in [0, 1] is a failure of that response. One that takes too long, or
    ends its process, is too; a new process then grades the rest. Use it from one thread (on Linux the
    process ends with the thread that started it), as a context manager::

        with Grader(task) as grader:
            grades = grader.grade(examples, texts)

    Args:
        task: picklable, of a class that can be imported.
        time_limit: seconds that one response may take.

    Raises:
        ConfigError: the time limit is not a positive number.
        TaskError: the task cannot be pickled.
    """

    def __init__(self, task: Task, time_limit: float = 10.0):
        if not 0 < time_limit < math.inf:
            raise ConfigError(f"time_limit must be a positive number of seconds, got {time_limit!r}")
        self.time_limit = time_limit
        self._starts = 0
        self._task = _pickled_task(task)
        self._process: GradingProcess | None = None

    def __enter__(self) -> Self:
        self._running()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def restarts(self) -> int:
        """How often the process was started again."""
        return max(0, self._starts - 1)

    def grade(self, examples: Sequence[Example], texts: Sequence[str]) -> list[Grade]:
        """The grade of each response, in order. Starts the process if none is running.

        Args:
            examples: [B], what was asked.
            texts: [B], the responses.

        Raises:
            DataError: the two lengths differ.
            TaskError: an example cannot be pickled, or the process cannot load the task.
        """
        if len(examples) != len(texts):
            raise DataError(f"grading needs one response for each example, got {len(texts)} responses for "
                            f"{len(examples)} examples")
        jobs = [_pickled_job(example, text) for example, text in zip(examples, texts, strict=True)]
        grades: list[Grade] = []
        try:
            while len(grades) < len(jobs):
                grades += self._grade_until_failure(jobs[len(grades):])
        except BaseException:
            # Replies of this batch that are still to come must not be taken for those of the next.
            self.close()
            raise
        return grades

    def close(self) -> None:
        """End the process. Another call of ``grade`` starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _grade_until_failure(self, jobs: list[bytes]) -> list[Grade]:
        """The grades of all jobs, or of those up to one at which the process had to be ended."""
        process = self._running()
        process.send(jobs)
        grades: list[Grade] = []
        while len(grades) < len(jobs):
            try:
                reply = process.receive(self.time_limit)
                grades.append(Grade(reply["reward"], reply["failure"]))
            except TimedOut:
                self.close()
                return [*grades, Grade(None, f"no reward within {self.time_limit:g} s; process ended")]
            except Died as death:
                self.close()
                return [*grades, Grade(None, str(death))]
        return grades

    def _running(self) -> GradingProcess:
        # One that ended between two batches is replaced without blaming a response.
        if self._process is not None and not self._process.idle():
            self.close()
        if self._process is None:
            self._process = GradingProcess(self._task)
            self._starts += 1
        return self._process


def _pickled_task(task: Task) -> bytes:
    if type(task).__module__ == "__main__":
        raise TaskError(f"the class {type(task).__name__} of the task is defined in the program that was "
                        "started, which the grading process does not run. Move it to a module and import it "
                        "from there.")
    try:
        return pickle.dumps(task)
    except Exception as error:
        raise TaskError(f"the task cannot be sent to the grading process: {type(error).__name__}: {error}. "
                        "Its class must be defined at the top level of a module, and its state "
                        "picklable.") from error


def _pickled_job(example: Example, text: str) -> bytes:
    try:
        return pickle.dumps((example, text))
    except Exception as error:
        raise TaskError(f"an example cannot be sent to the grading process: {type(error).__name__}: {error}. "
                        "What its `data` holds must be picklable.") from error
