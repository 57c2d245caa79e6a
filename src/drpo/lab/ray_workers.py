"""A study's runs on a Ray cluster: each has an actor, which starts the run's process on its node and stays beside it.

Only the exit code comes back; everything else is in the study's directory, which all nodes share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.cpus import usable_cpus
from drpo.errors import ConfigError, DrpoError
from drpo.installation import install
from drpo.lab.directory import Hold, StudyDirectory
from drpo.lab.workers import POLL, Ended, LocalProcess, environment

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as error:
    raise ConfigError(
        f"--on ray needs Ray, which cannot be loaded ({error}): {install('ray')}. "
        "Or leave out --on to run on this machine."
    ) from error

#: Bytes of a local cluster's object store, the least that Ray takes: only exit codes go through it.
OBJECT_STORE = 80 * 1024**2
#: Run as `python -c CHILD PARENT PROGRAM …`: becomes that program, which ends with its parent.
CHILD = """\
import os, sys
from drpo.child_process import die_with_parent
die_with_parent()
if os.getppid() != int(sys.argv[1]):
    sys.exit("the Ray worker of this run ended before it began")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class RayWorkers:
    """``jobs`` runs at once on the nodes of a cluster, each with ``threads`` cores of its own or with a GPU.

    ``program`` is what the nodes' own Python runs.
    """

    jobs: int
    threads: int
    gpu: bool = False
    program: Sequence[str] = ("-m", "drpo")

    @classmethod
    @contextmanager
    def connected(cls, jobs: int | None = None) -> Iterator[RayWorkers]:
        """Workers on the cluster at RAY_ADDRESS, or on one of this machine's cores that ends with the context.

        Default of ``jobs``: as many as there are GPUs, or else cores. Must be entered in the main thread.

        Raises:
            ConfigError: no cluster answers.
        """
        address = os.environ.get("RAY_ADDRESS")
        if not address:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that nobody asked Ray for reports nothing
        own: dict[str, Any] = (
            {}
            if address
            else {"num_cpus": usable_cpus(), "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        )
        try:
            _try_to_reach(address or "local")
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.WARNING, **own)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster at RAY_ADDRESS={address or ''}: {error}. Give HOST:PORT of one, or "
                "auto on a node of it, or unset it for a local one."
            ) from error
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            gpus = sum(int(node.get("GPU", 0)) for node in nodes)
            threads, most = share([int(node.get("CPU", 0)) for node in nodes], jobs or gpus)
            yield cls(jobs or gpus or most, threads, gpus > 0)
        finally:
            ray.shutdown()

    def start(
        self, arguments: Sequence[str], log: Path, directory: StudyDirectory, hold: Hold, slot: int
    ) -> RayExecution:
        """See :class:`drpo.lab.workers.Workers`; which GPU a run gets is Ray's choice."""
        needs = {"num_cpus": 0, "num_gpus": 1} if self.gpu else {"num_cpus": self.threads}
        actor = ray.remote(_Attendant).options(max_restarts=0, **needs).remote()
        order = _Order(
            [*self.program, *arguments],
            log.absolute(),
            directory.path.absolute(),
            hold.runner,
            self.threads,
            os.getcwd(),
        )
        return RayExecution(actor, order)


def share(cores: Sequence[int], jobs: int) -> tuple[int, int]:
    """The most threads with which ``jobs`` runs find a place on nodes of so many cores, at least one; and how many such
    runs do. No ``jobs``: one thread each.

    >>> share([4, 4], 3)
    (2, 4)
    """

    def places(threads: int) -> int:
        return sum(count // threads for count in cores)

    fitting = [threads for threads in range(1, max(cores, default=1) + 1) if jobs and places(threads) >= jobs]
    threads = max(fitting, default=1)
    return threads, max(1, places(threads))


@dataclass(frozen=True)
class _Order:
    """What a node is told."""

    arguments: Sequence[str]
    log: Path
    study: Path
    runner: str
    threads: int
    working_directory: str


class _Attendant:
    """Lives on the node, beside the process of one run; each of its methods is called once at most, `run` first."""

    def __init__(self) -> None:
        self.process: LocalProcess | None = None

    async def run(self, order: _Order) -> Ended:
        """Start the process and wait for it.

        Raises:
            DrpoError: no run can be here.
        """
        where = f"Ray node {ray.util.get_node_ip_address()}"
        try:
            os.chdir(order.working_directory)  # a study may name files from there
        except OSError as error:
            raise ConfigError(
                f"{where}: the working directory {order.working_directory} is not there "
                f"({error.strerror}). Start from a directory that all nodes share."
            ) from error
        try:
            held = StudyDirectory(order.study).share_hold(order.runner)
        except DrpoError as error:
            raise ConfigError(f"{where}: {error}") from error
        try:
            command = [sys.executable, "-c", CHILD, str(os.getpid()), sys.executable, *order.arguments]
            self.process = LocalProcess(command, order.log, environment(order.threads), held)
        finally:
            os.close(held)
        while (ended := self.process.ended()) is None:
            await asyncio.sleep(POLL)
        return ended

    async def stop(self) -> None:
        """Let the process finish its step."""
        if self.process:
            self.process.stop()


class RayExecution:
    """A run's actor, as the runner sees it."""

    def __init__(self, actor: Any, order: _Order):
        self.actor = actor
        self.began = actor.__ray_ready__.remote()
        self.end = actor.run.remote(order)

    @property
    def place(self) -> dict[str, Any]:
        """See :class:`drpo.lab.workers.Execution`."""
        return {"ray_job": ray.get_runtime_context().get_job_id()}

    def ended(self) -> Ended | None:
        """See :class:`drpo.lab.workers.Execution`."""
        if not _ready(self.end):
            return None
        try:
            return ray.get(self.end)
        except RayTaskError as error:
            if isinstance(error.cause, DrpoError):
                return Ended(None, str(error.cause), refused=True)
            raise
        except RayError as error:
            return Ended(None, f"lost with its Ray worker: {' '.join(str(error).split())}")

    def stop(self) -> None:
        """See :class:`drpo.lab.workers.Execution`; one that still waits for its place is given up."""
        if _ready(self.began):
            self.actor.stop.remote()
        else:
            self.kill()

    def kill(self) -> None:
        """See :class:`drpo.lab.workers.Execution`; the process ends with its parent."""
        ray.kill(self.actor)


def _try_to_reach(address: str) -> None:
    """Ray itself would go on trying for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()


def _ready(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])
