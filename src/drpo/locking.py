"""A lock on a directory that one process holds at a time; the kernel releases it when the process ends, however."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from drpo.errors import CheckpointError
from drpo.files import writing

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None

#: The longest that a holder's own description may be.
_DESCRIPTION = 1_000


@contextmanager
def locked(file: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the directory of ``file``, whose content says who holds it.

    Where the file system has no locks, ``note`` is told so and nothing is held.

    Raises:
        CheckpointError: another process holds it; the message names it. WriteError: the file cannot be made.
    """
    with writing(file):
        descriptor = _open(file)
    try:
        if _take(descriptor, file.parent):
            with suppress(OSError):  # a full disk: the lock holds without a name
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _myself().encode())
        else:
            note(
                f"{file.parent} is on a file system without locks (flock): make sure that only one process at a time "
                f"uses it"
            )
        yield
    finally:
        os.close(descriptor)


def last_holder(file: Path) -> Holder | None:
    """The process that took the lock last, as ``file`` names it; None if it names none. The lock is not touched."""
    try:
        found = json.loads(file.read_bytes()[:_DESCRIPTION])
        return Holder(int(found["pid"]), str(found["host"]), datetime.fromisoformat(found["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that took a lock, the machine that it ran on, and when it took it."""

    pid: int
    host: str
    since: datetime

    def is_gone(self) -> bool:
        """Whether it was a process of this machine that has ended; of other machines nothing is known."""
        if fcntl is None or self.host != socket.gethostname() or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
        return False


def _open(file: Path) -> int:
    """An open descriptor of ``file`` that stands under its name: one that was just removed is opened anew."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> bool:
    """Whether the lock is held now; False where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CheckpointError(
            f"{folder} is in use by {_holder(descriptor)}. Wait until that ends, or stop it with "
            "Ctrl-C; or choose another directory."
        ) from error
    except OSError:
        return False
    return True


def _myself() -> str:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, _DESCRIPTION, 0))
        return f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
