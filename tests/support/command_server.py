"""Forks Pythons for `support.command`: `command_server.py SOCKET`, until the other end closes."""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import socket
import sys
import types
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO

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
    "drpo.lab.run",
    "drpo.tasks.grading.grader",
    "drpo.train.loop",
    "reasoning_gym",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.convert_slow_tokenizer",
    "transformers.integrations.mistral",
)


def main() -> None:
    """Fork what is asked for, and tell each asker its process's number, then its exit code as subprocess has it."""
    import torch

    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # a fork that collects garbage would copy all pages of what is loaded
    connection = socket.socket(fileno=int(sys.argv[1]))
    at_work: dict[int, tuple[int, int]] = {}  # by the descriptor of a process: its number, and the asker's descriptor
    while True:
        for ready in select.select([connection.fileno(), *at_work], [], [])[0]:
            if ready in at_work:
                process, asker = at_work.pop(ready)
                _, status = os.waitpid(process, 0)
                _tell(asker, os.waitstatus_to_exitcode(status))
                os.close(asker)
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(connection, 4, 4)
            if not message:
                return
            text = b""
            while not text.endswith(b"\n"):
                text += connection.recv(65536)
            *streams, asker = descriptors
            process = os.fork()
            if process == 0:
                connection.close()
                for descriptor in [asker, *at_work, *(theirs for _, theirs in at_work.values())]:
                    os.close(descriptor)
                return _become(json.loads(text), streams)
            for descriptor in streams:
                os.close(descriptor)
            at_work[os.pidfd_open(process)] = process, asker
            _tell(asker, process)


def _tell(asker: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody asks for that process any more
        os.write(asker, b"%d\n" % number)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """`python ARGUMENTS` itself, of `-c`, `-m` or a file."""
    if request["group"]:
        os.setpgid(0, 0)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    # The server's own know whether they stand before a pipe, a file or a terminal, which these need not.
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    at_once = "PYTHONUNBUFFERED" in os.environ
    sys.stdout = sys.__stdout__ = _writer(1, sys.stdout, line_buffering=os.isatty(1), write_through=at_once)
    sys.stderr = sys.__stderr__ = _writer(2, sys.stderr, line_buffering=True, write_through=at_once)
    os.chdir(request["cwd"])
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    how, *rest = request["arguments"]
    what = rest.pop(0) if how in ("-c", "-m") else how
    first = "" if how == "-c" else os.getcwd() if how == "-m" else os.path.dirname(os.path.abspath(what))
    sys.path[:1] = [first, *added]
    sys.argv[:] = [how if how == "-c" else what, *rest]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), module.__dict__)
    else:
        runpy.run_path(what, run_name="__main__")


def _writer(number: int, like: TextIO, line_buffering: bool, write_through: bool) -> TextIOWrapper:
    stream = open(number, "w", encoding=like.encoding, errors=like.errors, closefd=False)  # noqa: SIM115
    stream.reconfigure(line_buffering=line_buffering, write_through=write_through)
    return stream


if __name__ == "__main__":
    main()
