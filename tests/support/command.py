"""`drpo …` as a process, without its imports: each is forked from a server that has loaded what commands load.

A test that is about loading, or about what the environment decides while something is loaded, starts its own Python.
"""

from __future__ import annotations

import atexit
import json
import os
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


def run(
    arguments: Sequence[object],
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """`drpo ARGUMENTS` in a process of its own, to its end.

    Args:
        arguments: of the command line.
        cwd: where it runs; None: here.
        environment: over this process's own.
        timeout: seconds until it is killed.

    Raises:
        TimeoutExpired: it was.
    """
    words = [str(argument) for argument in arguments]
    request = {
        "arguments": words,
        "cwd": str(cwd or Path.cwd()),
        "environment": {**os.environ, **(environment or {})},
        "timeout": timeout,
    }
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing, _lock:
        connection = _connection()
        socket.send_fds(connection, [b"fds"], [nothing.fileno(), out.fileno(), err.fileno()])
        connection.sendall(json.dumps(request).encode() + b"\n")
        code = json.loads(_line(connection))
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    if code is None:
        raise subprocess.TimeoutExpired(["drpo", *words], timeout, *texts)
    return subprocess.CompletedProcess(["drpo", *words], code, *texts)


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
        part = connection.recv(4096)
        if not part:
            raise RuntimeError(f"the server of commands ended; run {SERVER.name} to see why")
        found += part
    return found
