"""Where a study's runs are executed: here, as processes. On a Ray cluster: :mod:`drpo.lab.ray_workers`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from drpo.child_process import TELL_REFUSED_WRITES
from drpo.cpus import usable_cpus

if TYPE_CHECKING:
    from drpo.lab.directory import StudyDirectory
    from drpo.lab.hold import Hold
    from drpo.lab.warm import Parent

#: Seconds between looks at the processes.
POLL = 0.1


@dataclass(frozen=True)
class Ended:
    """How the process of a run ended: with an exit code (minus the signal that killed it), or unseen and ``lost``, for
    a reason. ``refused``: it was not started, as no run can be where this one was to be."""

    code: int | None
    lost: str = ""
    refused: bool = False


class Execution(Protocol):
    """A run that was started."""

    @property
    def place(self) -> dict[str, Any]:
        """Where, for the journal."""
        ...

    def ended(self) -> Ended | None:
        """How it ended; None while it is at work. Does not wait."""
        ...

    def stop(self) -> None:
        """Let it finish its step and checkpoint."""
        ...

    def kill(self) -> None:
        """End it at once; may be repeated."""
        ...


class Workers(Protocol):
    """What runs at once: ``jobs`` runs of ``threads`` threads."""

    @property
    def jobs(self) -> int: ...

    @property
    def threads(self) -> int: ...

    def start(self, arguments: Sequence[str], log: Path, directory: StudyDirectory, hold: Hold, slot: int) -> Execution:
        """Start `drpo` with these arguments, its output appended to ``log``.

        It holds the study's ``directory`` for as long as it lives; ``slot`` is one of ``jobs`` that is free.
        """
        ...


#: What a run is started with.
PROGRAM = (sys.executable, "-m", "drpo")


@dataclass(frozen=True)
class LocalWorkers:
    """``jobs`` processes of ``threads`` threads on this machine, on ``devices`` (CUDA's names) in turn.

    On Linux and without GPUs they are forked from a process that has loaded torch already (:mod:`drpo.lab.warm`),
    unless they are another ``program`` than drpo, or ``warm`` is false.
    """

    jobs: int
    threads: int
    devices: Sequence[str] = ()
    program: Sequence[str] = PROGRAM
    warm: bool = True
    _parents: list[Parent] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def here(cls, jobs: int | None = None) -> LocalWorkers:
        """As many as this machine has GPUs, or else cores; its cores are shared out among them."""
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
        devices = names if torch.cuda.is_available() else []
        jobs = jobs or len(devices) or usable_cpus()
        return cls(jobs, max(1, usable_cpus() // jobs), devices)

    def environment(self, slot: int) -> dict[str, str]:
        """The environment of the process in that slot."""
        device = {"CUDA_VISIBLE_DEVICES": self.devices[slot % len(self.devices)]} if self.devices else {}
        return environment(self.threads) | device

    def start(self, arguments: Sequence[str], log: Path, directory: StudyDirectory, hold: Hold, slot: int) -> Execution:
        """See :class:`Workers`."""
        if self.warm and sys.platform == "linux" and not self.devices and tuple(self.program) == PROGRAM:
            from drpo.lab.warm import ForkedRun, Parent

            if not self._parents:
                self._parents.append(Parent(self.environment(slot)))
                weakref.finalize(self, self._parents[0].close)
            process = self._parents[0].fork(arguments, log, self.environment(slot), hold.descriptor)
            if process is not None:
                return ForkedRun(self._parents[0], process)
        return LocalProcess([*self.program, *arguments], log, self.environment(slot), hold.descriptor)


class LocalProcess:
    """A run as a process of this machine, which inherits the descriptor ``held``."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], held: int):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            # A group of its own: Ctrl-C at a terminal reaches the runner alone, which then stops the runs.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(held,),
                process_group=0,
            )

    @property
    def place(self) -> dict[str, Any]:
        """See :class:`Execution`."""
        return {"pid": self.process.pid}

    def ended(self) -> Ended | None:
        """See :class:`Execution`."""
        code = self.process.poll()
        return None if code is None else Ended(code)

    def stop(self) -> None:
        """See :class:`Execution`."""
        self.process.terminate()

    def kill(self) -> None:
        """See :class:`Execution`."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def environment(threads: int) -> dict[str, str]:
    """The environment of a run's process."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", TELL_REFUSED_WRITES: "1"}
