"""What every process that we start for ourselves needs: to end with its parent, and to be ended with its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

#: Run as `python -c START MODULE PATH …`: MODULE.main(), with the import path of the parent (JSON), whatever put
#: entries there; the parent's main module is not imported again.
START = """\
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[2])
importlib.import_module(sys.argv[1]).main()
"""

#: The exit status of `drpo` after a write that the disk refused, for a parent that sets :data:`TELL_REFUSED_WRITES` in
#: its environment (EX_IOERR); 2 for everybody else, as for any mistake that the user can fix.
WRITE_REFUSED = 74
TELL_REFUSED_WRITES = "DRPO_TELL_REFUSED_WRITES"


def import_path() -> list[str]:
    """The entries of ``sys.path``, for a process that may stand in another directory."""
    return [os.fspath(entry) or os.getcwd() for entry in sys.path]


def die_with_parent() -> None:
    """On Linux the kernel ends this process with its parent, even while it is stuck in C code."""
    if sys.platform == "linux":
        import ctypes

        # Where the C library lacks it, the closed pipe still ends this process.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def is_alive(process: int) -> bool:
    """Whether a process of this machine has that number, whoever's it is."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session of its own, and whatever it started, at once; and wait for it."""
    if process.returncode is None:  # once waited for, its number may be that of another process
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended by itself
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    process.wait()


def how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """In words, "exited with status 1" or "was ended by SIGKILL"; waits five seconds for it."""
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "closed its output"
    if code >= 0:
        return f"exited with status {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
