"""Runs the cases of a module in child processes: one that hangs or dies costs its own case alone."""

from __future__ import annotations

import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
#: Seconds that a child has for its imports, on top of its first case.
START = 120.0
#: Not generators.
_FRAME = ("child", "log_files", "log_records", "outcomes", "runner", "test_fuzz")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the case of a seed ended; ``problem`` is None if it ended well."""

    seed: int
    problem: str | None


def modules() -> list[str]:
    """The generators there are."""
    return sorted(module.name for module in pkgutil.iter_modules([str(FOLDER)]) if module.name not in _FRAME)


def run_cases(module: str, first: int, last: int, time_limit: float) -> Iterator[Outcome]:
    """The outcomes of the seeds from ``first`` to ``last`` (not included), in order.

    Args:
        module: a name of :func:`modules`.
        time_limit: seconds for one case; then its process is ended, and the case is a hang.
    """
    seed = first
    while seed < last:
        for outcome in _one_child(module, seed, last, time_limit):
            yield outcome
            seed = outcome.seed + 1


def _one_child(module: str, first: int, last: int, time_limit: float) -> Iterator[Outcome]:
    """Outcomes until all cases ended or one took the child with it."""
    path = os.pathsep.join([str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.Popen(
        [sys.executable, "-m", "fuzz.child", module, str(first), str(last)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert child.stdout is not None
    seed, rest = first, b""
    deadline = time.monotonic() + START + time_limit
    try:
        while seed < last:
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                yield Outcome(seed, f"hangs: no end after {time_limit:g} s")
                return
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                yield Outcome(seed, f"the process died ({_how(child.wait())})")
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                yield Outcome(answer["seed"], answer["problem"])
                seed = answer["seed"] + 1
                deadline = time.monotonic() + time_limit
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
