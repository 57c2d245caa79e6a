"""The parent's side of one grading process: start it, send it jobs, read its replies, end it."""

from __future__ import annotations

import contextlib
import json
import queue
import select
import subprocess
import sys
import threading
from typing import IO, Any

from drpo.child_process import START, how_it_ended, import_path, kill_group
from drpo.errors import TaskError
from drpo.tasks.grading.worker import LENGTH

#: Seconds that loading a task may take, such as importing a large library from a network disk.
START_LIMIT = 120.0


class Died(Exception):
    """The process ended without a reply; the message says how."""


class GradingProcess:
    """A process that holds one task and grades what it is sent, in order.

    Returns from its start at once. The first line that it writes, to be given to :meth:`check_ready`, says whether it
    could load the task; every other one is the reply to a job, to be given to :meth:`reply`.

    Args:
        task: pickled.
        arrivals: where its lines are put, each with the process itself; several processes may share one queue.
    """

    def __init__(self, task: bytes, arrivals: queue.SimpleQueue[tuple[GradingProcess, bytes]]):
        # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then ends this one.
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, "drpo.tasks.grading.worker", json.dumps(import_path())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin = self._process.stdin
        threading.Thread(target=self._read_lines, args=(self._process.stdout, arrivals), daemon=True).start()
        self.send(task)

    def send(self, request: bytes) -> None:
        """Queue a request; returns at once, whatever the process is doing."""
        data = LENGTH.pack(len(request)) + request
        if len(data) <= select.PIPE_BUF:
            _write(self._stdin, data)  # the process empties its pipe in a thread of its own
        else:
            threading.Thread(target=_write, args=(self._stdin, data), daemon=True).start()

    def reply(self, line: bytes) -> dict[str, Any]:
        """What a line that came from this process says.

        Raises:
            Died: the process has ended, or wrote something else.
        """
        if not line.endswith(b"\n"):
            raise Died(f"the grading process {how_it_ended(self._process)}")
        try:
            return json.loads(line)
        except ValueError:
            raise Died(f"the grading process wrote {line[:100]!r} where its reply belongs") from None

    def check_ready(self, line: bytes) -> None:
        """That the first line says that the task is loaded.

        Raises:
            TaskError: it says something else.
        """
        try:
            reply = self.reply(line)
        except Died as error:
            raise TaskError(
                f"the grading process ended while loading the task: {error}. What it wrote to standard error says more."
            ) from error
        if "error" in reply:
            raise TaskError(
                f"the grading process cannot load the task: {reply['error']}. A task's class "
                "must be importable from a module, and its state picklable."
            )

    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        kill_group(self._process)
        with contextlib.suppress(OSError):  # what was not sent yet has nowhere to go
            self._stdin.close()

    def _read_lines(self, stream: IO[bytes], arrivals: queue.SimpleQueue[tuple[GradingProcess, bytes]]) -> None:
        """Pass lines on; a last one without its newline, possibly empty, stands for the end."""
        while True:
            line = stream.readline()
            arrivals.put((self, line))
            if not line.endswith(b"\n"):
                stream.close()
                return


def _write(stream: IO[bytes], data: bytes) -> None:
    # A pipe that broke is seen, with its cause, by the one who waits for replies.
    with contextlib.suppress(OSError, ValueError):
        stream.write(data)
        stream.flush()
