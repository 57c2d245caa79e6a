"""A study's runs on a Ray cluster: each has an actor, which starts the run's process on its node and stays beside it.

Only the exit code comes back; everything else is in the study's directory, which all nodes share. What the nodes load
for an actor is :mod:`drpo.lab.ray_attendant`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.cpus import usable_cpus
from drpo.errors import ConfigError, DrpoError
from drpo.installation import install
from drpo.lab.directory import StudyDirectory
from drpo.lab.hold import Hold
from drpo.lab.workers import Ended

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as error:
    raise ConfigError(
        f"--on ray needs Ray, which cannot be loaded ({error}): {install('ray')}. "
        "Or leave out --on to run on this machine."
    ) from error

from drpo.lab.ray_attendant import Attendant, Order

#: Bytes of a local cluster's object store, the least that Ray takes: only exit codes go through it.
OBJECT_STORE = 80 * 1024**2


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
        actor = ray.remote(Attendant).options(max_restarts=0, **needs).remote()
        order = Order(
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


class RayExecution:
    """A run's actor, as the runner sees it."""

    def __init__(self, actor: Any, order: Order):
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
