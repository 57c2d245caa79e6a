"""Runs that do not load torch and transformers anew: a process that has loaded them forks one for each run.

Loading takes seconds, of which a study pays as many as it has runs. The parent has imported modules and done nothing
else: it has started no thread, and what a forked run computes is what a fresh process would. On Linux alone; elsewhere,
and where the parent cannot be had, every run is a process of its own from the start.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from drpo.allocator import keep_freed_memory
from drpo.child_process import START, import_path, is_alive
from drpo.cpus import wait_briefly
from drpo.lab.workers import Ended

#: What is loaded before a run is asked for: what nearly every run imports.
MODULES = (
    "torch",
    "torch._inductor.config",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen3.modeling_qwen3",
    "reasoning_gym",
    "drpo.cli.app",
    "drpo.cli.train",
    "drpo.train.loop",
)
#: Seconds between looks at the forked runs.
POLL = 0.05


class Parent:
    """The process that has loaded everything, seen from the runner; it ends with the runner, and its runs do not."""

    def __init__(self, environment: Mapping[str, str]):
        ours, theirs = socket.socketpair()
        self.socket, self.codes = ours, dict[int, int]()
        command = [sys.executable, "-c", START, __name__, json.dumps(import_path()), str(theirs.fileno())]
        with theirs:
            # A group of its own, as the runs': Ctrl-C at a terminal reaches the runner alone.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        self._rest = b""

    def fork(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str], held: int) -> int | None:
        """The process that runs `drpo` with these arguments; None where the parent is gone.

        Args:
            arguments: what follows ``drpo`` on its command line.
            log: its output is appended there.
            environment: of the run.
            held: a descriptor that it inherits.
        """
        order = json.dumps([list(arguments), dict(environment)]).encode() + b"\n"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            try:
                socket.send_fds(self.socket, [order[:1]], [held, output.fileno()])
                self.socket.sendall(order[1:])
                while True:
                    for told in self._read(None):
                        if "started" in told:
                            return told["started"]
            except OSError:
                return None

    def code(self, process: int) -> int | None:
        """The exit code of a forked run (minus the signal that killed it); None while it is at work.

        Raises:
            ChildProcessError: the parent is gone, and nobody will know.
        """
        try:
            self._read(0)
        except OSError:
            if process not in self.codes:
                raise ChildProcessError("the process that had forked it is gone") from None
        return self.codes.get(process)

    def _read(self, timeout: float | None) -> list[dict[str, int]]:
        """What the parent told since; codes are kept.

        Raises:
            OSError: it is gone.
        """
        if not select.select([self.socket], [], [], timeout)[0]:
            return []
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the parent of the runs ended")
        *lines, self._rest = (self._rest + data).split(b"\n")
        told = [json.loads(line) for line in lines]
        self.codes |= {one["ended"]: one["code"] for one in told if "ended" in one}
        return told

    def close(self) -> None:
        """End it, even while it loads; runs at work go on."""
        self.socket.close()
        self.process.terminate()
        self.process.wait()


class ForkedRun:
    """A run that ``parent`` forked: an execution as :class:`drpo.lab.workers.Execution` says."""

    def __init__(self, parent: Parent, process: int):
        self.parent, self.process = parent, process

    @property
    def place(self) -> dict[str, Any]:
        """Where, for the journal."""
        return {"pid": self.process}

    def ended(self) -> Ended | None:
        """How it ended; None while it is at work. Does not wait."""
        try:
            code = self.parent.code(self.process)
        except ChildProcessError as error:
            if is_alive(self.process):
                return None
            return Ended(None, lost=str(error))
        return None if code is None else Ended(code)

    def stop(self) -> None:
        """Let it finish its step and checkpoint."""
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and whatever it started, at once; may be repeated."""
        with suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)


def main() -> None:
    """The parent: load, then fork what is asked for until nobody asks any more."""
    wait_briefly()
    keep_freed_memory()
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # a run that collects garbage would copy all pages of what is loaded
    channel, at_work = socket.socket(fileno=int(sys.argv[3])), set[int]()
    while True:
        if select.select([channel], [], [], POLL if at_work else None)[0]:
            data, descriptors, *_ = socket.recv_fds(channel, 1, 2)
            if not data:
                return
            while not data.endswith(b"\n"):
                data += channel.recv(1 << 16)
            held, output = descriptors
            process = os.fork()
            if process == 0:
                arguments, environment = json.loads(data)
                return _run(arguments, environment, channel, output)
            os.close(held)
            os.close(output)
            at_work.add(process)
            _tell(channel, {"started": process})
        for process in list(at_work):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                at_work.remove(process)
                _tell(channel, {"ended": process, "code": os.waitstatus_to_exitcode(status)})


def _tell(channel: socket.socket, what: dict[str, Any]) -> None:
    with suppress(OSError):  # the runner is gone; the next look at the channel ends this process
        channel.sendall(json.dumps(what).encode() + b"\n")


def _run(arguments: list[str], environment: dict[str, str], channel: socket.socket, output: int) -> None:
    """In the forked process: become `python -m drpo` with these arguments."""
    os.setpgid(0, 0)
    channel.close()  # and ``held`` stays open for as long as this process lives
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["drpo", *arguments]
    runpy.run_module("drpo", run_name="__main__", alter_sys=True)
