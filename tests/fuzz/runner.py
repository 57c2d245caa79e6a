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
#: A case may wait this many times its limit: where the machine is busy, only the processor's time says how long it ran.
PATIENCE = 20
#: Seconds between two looks at a silent child.
_LOOK = 0.2
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
        first: the first seed.
        last: the seed after the last.
        time_limit: seconds of processor time for one case, and a :data:`PATIENCE`-th of its seconds by the clock; then
            its process is ended, and the case is a hang.
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
        [sys.executable, "-m", "fuzz.child", module, str(first), str(last)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert child.stdout is not None
    seed, rest, allowed = first, b"", START + time_limit
    since, used = time.monotonic(), 0.0
    try:
        while seed < last:
            ready, _, _ = select.select([child.stdout], [], [], _LOOK)
            if not ready:
                if _processor_seconds(child.pid) - used > allowed or time.monotonic() - since > PATIENCE * allowed:
                    yield Outcome(seed, f"hangs: no end after {time_limit:g} s")
                    return
                continue
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                yield Outcome(seed, f"the process died ({_how(child.wait())})")
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                yield Outcome(answer["seed"], answer["problem"])
                seed = answer["seed"] + 1
            if lines:
                since, used, allowed = time.monotonic(), _processor_seconds(child.pid), time_limit
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _processor_seconds(pid: int) -> float:
    """The processor time that a process has used; 0 where the system does not tell, so that the clock alone counts."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
