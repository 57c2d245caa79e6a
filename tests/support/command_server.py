"""Forks `drpo` commands for `support.command`: `command_server.py SOCKET`, until the other end closes."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

#: What commands load, and all that it loads.
LOADED = (
    "torch",
    "transformers",
    "drpo.cli.app",
    "drpo.cli.inspection",
    "drpo.cli.train",
    "drpo.cli.evaluate",
    "drpo.cli.lab",
    "drpo.cli.report",
    "drpo.cli.recipe",
    "drpo.cli.doctor",
    "drpo.tasks.grading.grader",
    "drpo.train.loop",
    "reasoning_gym",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.convert_slow_tokenizer",
    "transformers.integrations.mistral",
)


def main() -> None:
    """Serve one command after the other."""
    import torch

    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    for name in LOADED:
        importlib.import_module(name)
    connection = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 3, 3)
        if not message:
            return
        text = b""
        while not text.endswith(b"\n"):
            text += connection.recv(65536)
        request = json.loads(text)
        process = os.fork()
        if process == 0:
            connection.close()
            _become(request, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(json.dumps(_wait(process, request["timeout"])).encode() + b"\n")


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """The command itself, as `python -m drpo` would run it."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv[1:] = request["arguments"]
    runpy.run_module("drpo", run_name="__main__", alter_sys=True)


def _wait(process: int, timeout: float) -> int | None:
    """The exit code as subprocess tells it; None for a process that had to be killed."""
    descriptor = os.pidfd_open(process)
    try:
        ended, _, _ = select.select([descriptor], [], [], timeout)
    finally:
        os.close(descriptor)
    if not ended:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    main()
