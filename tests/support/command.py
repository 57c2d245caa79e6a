"""`drpo …` and `python …` as processes, without their imports: each is forked from a server that has loaded what
commands load.

A test that is about loading, or about what the environment decides while something is loaded, starts its own Python.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

SERVER = Path(__file__).with_name("command_server.py")
_lock = threading.Lock()
_server: list[socket.socket] = []


class Process:
    """`python ARGUMENTS`, forked; what a :class:`subprocess.Popen` of text tells, this tells as well.

    Args:
        arguments: what follows ``python``: ``-c`` and a program, ``-m`` and a module, or a file; and theirs.
        cwd: where it runs; None: here.
        environment: over this process's own.
        group: whether it leads a process group of its own.
        streams: descriptors of its input, output and error output, in place of nothing and of two files that
            :meth:`written` reads.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        group: bool = False,
        streams: Sequence[int] | None = None,
    ):
        self.args = [str(argument) for argument in arguments]
        self.returncode: int | None = None
        self._output = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115, for as long as this lives
        self._told, theirs = socket.socketpair()
        request = {
            "arguments": self.args,
            "cwd": str(cwd or Path.cwd()),
            "environment": {**os.environ, **(environment or {})},
            "group": group,
        }
        with theirs, open(os.devnull, "rb") as nothing:
            streams = streams or [nothing.fileno(), *(stream.fileno() for stream in self._output)]
            with _lock:
                connection = _connection()
                socket.send_fds(connection, [b"fds"], [*streams, theirs.fileno()])
                connection.sendall(json.dumps(request).encode() + b"\n")
        self.pid = self._number(None)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, minus the signal that killed it.

        Raises:
            TimeoutExpired: it has not ended within ``timeout`` seconds.
        """
        if self.returncode is None:
            self.returncode = self._number(timeout)
        return self.returncode

    def poll(self) -> int | None:
        """The exit code; None while it is at work."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for it; what it wrote to its output, and to its error output.

        Raises:
            TimeoutExpired: see :meth:`wait`.
        """
        self.wait(timeout)
        return self.written()

    def written(self) -> tuple[str, str]:
        """What it has written so far."""
        out, err = (os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0) for stream in self._output)
        return out.decode("utf-8", "replace"), err.decode("utf-8", "replace")

    def send_signal(self, number: int) -> None:
        """Nothing happens if it is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _number(self, timeout: float | None) -> int:
        # A timeout of 0 asks without waiting; None waits. A line comes in one piece.
        self._told.settimeout(timeout)
        try:
            line = self._told.recv(1, socket.MSG_PEEK) and _line(self._told)
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired(["python", *self.args], timeout or 0.0, *self.written()) from None
        if not line:
            raise RuntimeError(f"the server of commands ended; run {SERVER.name} to see why")
        return int(line)


def python(
    arguments: Sequence[object],
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in a process of its own, to its end.

    Args:
        arguments: see :class:`Process`.
        cwd: where it runs; None: here.
        environment: over this process's own.
        timeout: seconds until it is killed.

    Raises:
        TimeoutExpired: it was.
    """
    process = Process(arguments, cwd, environment)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(["python", *process.args], process.wait(), *process.written())


def run(
    arguments: Sequence[object],
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """`drpo ARGUMENTS`; see :func:`python`."""
    return python(["-m", "drpo", *arguments], cwd, environment, timeout)


def _connection() -> socket.socket:
    if not _server:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen([sys.executable, str(SERVER), str(theirs.fileno())], pass_fds=[theirs.fileno()])
        _server.append(ours)

        def end() -> None:
            ours.close()
            process.wait()

        atexit.register(end)
    return _server[0]


def _line(connection: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        part = connection.recv(1)
        if not part:
            return b""
        found += part
    return found
