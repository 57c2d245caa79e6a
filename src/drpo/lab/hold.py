"""Who holds a study's directory: the locks of its runner and of its runs.

Nothing here loads torch: beside every run on a Ray cluster there is a process that needs this and no more.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drpo.errors import CheckpointError

#: Locked by the runner, and by the runner and every run of its.
RUNNER_LOCK, RUNS_LOCK = ".runner.lock", ".runs.lock"


@dataclass(frozen=True)
class Hold:
    """A runner's hold of a study's directory: ``descriptor`` is for its runs to inherit, so that the directory is held
    for as long as one of them lives; ``runner`` names this runner and no other, for runs that it starts elsewhere."""

    descriptor: int
    runner: str


def share_hold(study: Path, runner: str) -> int:
    """For a run that cannot inherit its runner's hold, being on another machine: a descriptor that holds the
    study's directory just as well.

    Raises:
        CheckpointError: this is not the directory that the runner of that name holds, as it is seen from here.
    """
    try:
        descriptor = os.open(study / RUNS_LOCK, os.O_RDWR)
    except OSError as error:
        raise CheckpointError(
            f"{study} is not there or cannot be written to ({error.strerror}). It must be on "
            "a file system that all nodes share; choose such an --out."
        ) from error
    try:
        if try_lock(descriptor, fcntl.LOCK_EX):
            raise CheckpointError(
                f"{study} is not held by its runner. It must be on a file system that all "
                "nodes share, with locks (flock) that reach from one to the other; choose such "
                "an --out."
            )
        if not try_lock(descriptor, fcntl.LOCK_SH) or (study / RUNNER_LOCK).read_text() != runner:
            raise CheckpointError(
                f"{study} is held by another runner. It must be on a file system that all "
                "nodes share; choose such an --out."
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def lock_file(file: Path) -> Iterator[int]:
    """A descriptor of that file, which is made if it is not there."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take the lock (`fcntl.LOCK_EX` or `LOCK_SH`), and say whether it was to be had; does not wait."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
