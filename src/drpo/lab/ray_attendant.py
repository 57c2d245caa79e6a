"""What stands beside the process of one run on a node of a Ray cluster; the run loads torch, and this does not."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from drpo.errors import ConfigError, DrpoError
from drpo.lab.hold import share_hold
from drpo.lab.workers import POLL, Ended, LocalProcess, environment

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
class Order:
    """One run, as the runner orders it from a node."""

    arguments: Sequence[str]
    log: Path
    study: Path
    runner: str
    threads: int
    working_directory: str


class Attendant:
    """Lives on the node, beside the process of one run; each of its methods is called once at most, `run` first."""

    def __init__(self) -> None:
        self.process: LocalProcess | None = None

    async def run(self, order: Order) -> Ended:
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
            held = share_hold(order.study, order.runner)
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
