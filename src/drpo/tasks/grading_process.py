"""The parent's side of one grading process: start it, send it jobs, wait for replies, end it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import IO, Any

from drpo.errors import TaskError
from drpo.tasks.grading_worker import LENGTH

#: Seconds that loading a task may take, such as importing a large library from a network disk.
START_LIMIT = 120.0

# The import path is the parent's, whatever put entries there; its main module is not imported again.
_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from drpo.tasks.grading_worker import main
main()
"""


class Died(Exception):
    """The process ended without a reply; the message says how."""


class TimedOut(Exception):
    """No reply came within the time allowed."""


class GradingProcess:
    """A process that holds one task and grades what it is sent, in order.

    Args:
        task: pickled.

    Raises:
        TaskError: it cannot load the task.
    """

    def __init__(self, task: bytes):
        path = [os.fspath(entry) or os.getcwd() for entry in sys.path]
        # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then ends this one.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin = self._process.stdin
        self._replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_read_lines, args=(self._process.stdout, self._replies), daemon=True).start()
        try:
            self.send([task])
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def send(self, requests: Iterable[bytes]) -> None:
        """Queue requests; returns at once, whatever the process is doing."""
        data = b"".join(LENGTH.pack(len(request)) + request for request in requests)
        threading.Thread(target=_write, args=(self._stdin, data), daemon=True).start()

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next reply.

        Raises:
            Died: the process has ended, or replied with something else.
            TimedOut: none came within ``seconds``.
        """
        try:
            line = self._replies.get(timeout=seconds)
        except queue.Empty:
            raise TimedOut from None
        if not line.endswith(b"\n"):
            raise Died(self._how_it_ended())
        try:
            return json.loads(line)
        except ValueError:
            raise Died(f"the grading process wrote {line[:100]!r} where its reply belongs") from None

    def idle(self) -> bool:
        """Whether the process runs and owes no reply; its end counts as one."""
        return self._process.poll() is None and self._replies.empty()

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        if self._process.returncode is None:  # once waited for, its number may be that of another process
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended by itself
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # what was not sent yet has nowhere to go
            self._stdin.close()

    def _await_ready(self) -> None:
        try:
            reply = self.receive(START_LIMIT)
        except TimedOut:
            raise TaskError(f"the grading process did not load the task within {START_LIMIT:.0f} s. Make "
                            "importing and unpickling it faster.") from None
        except Died as error:
            raise TaskError(f"the grading process ended while loading the task: {error}. What it wrote to "
                            "standard error says more.") from error
        if "error" in reply:
            raise TaskError(f"the grading process cannot load the task: {reply['error']}. A task's class "
                            "must be importable from a module, and its state picklable.")

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the grading process closed its output"
        if code >= 0:
            return f"the grading process exited with status {code}"
        with contextlib.suppress(ValueError):
            return f"the grading process was ended by {signal.Signals(-code).name}"
        return f"the grading process was ended by signal {-code}"


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Pass lines on; a last one without its newline, possibly empty, stands for the end."""
    while True:
        line = stream.readline()
        lines.put(line)
        if not line.endswith(b"\n"):
            stream.close()
            return


def _write(stream: IO[bytes], data: bytes) -> None:
    # A pipe that broke is seen, with its cause, by the one who waits for replies.
    with contextlib.suppress(OSError, ValueError):
        stream.write(data)
        stream.flush()
