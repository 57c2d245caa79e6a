"""Which CPUs this process may use, how many of them are free, and how its idle threads wait. Loads no torch."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

#: Read by the OpenMP libraries when they are loaded. libgomp (torch on Linux) spins through 20,000 iterations in a few
#: tenths of a millisecond, which bridges the gap between two operations; its default of 300,000 holds a CPU for
#: milliseconds, and a policy of "passive" asks the kernel at every gap. LLVM's and Intel's count milliseconds.
WAITING = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
#: Where the user chose how threads wait.
CHOSEN = ("OMP_WAIT_POLICY", *WAITING)
#: Seconds that a look at the load takes at least.
LOOK = 0.5

_PROC = Path("/proc")


def wait_briefly(environment: MutableMapping[str, str] | None = None) -> None:
    """Let idle OpenMP threads of this process and its children sleep soon, unless the user chose how they wait. To be
    called before torch is loaded."""
    values = os.environ if environment is None else environment
    if not any(name in values for name in CHOSEN):
        values.update(WAITING)


def usable_cpus(proc: Path = _PROC) -> int:
    """The CPUs that this process may use: of the machine, of its affinity mask (and cpuset), of its cgroups' limits."""
    return max(1, min(len(allowed_cpus()), int(quota(proc) or sys.maxsize)))


def cpu_name(proc: Path = _PROC) -> str:
    """The processor's name, as well as the system knows it."""
    return _cpuinfo(proc).get("model name") or platform.processor() or platform.machine()


def cpu_model(proc: Path = _PROC) -> str:
    """The processor's name with what tells models of one name apart: sums of floats may differ between them."""
    found = _cpuinfo(proc)
    parts = [f"{key} {found[key]}" for key in ("cpu family", "model", "stepping") if key in found]
    return ", ".join([cpu_name(proc), *parts])


def _cpuinfo(proc: Path) -> dict[str, str]:
    """The facts of the first processor; empty where the system does not say."""
    try:
        lines = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found


def free_cpus(others: float) -> int:
    """The CPUs that this process could compute on while ``others`` of them are in use, at least one."""
    # A CPU that is busy for less than a third of the time counts as free: something always runs.
    return max(1, min(usable_cpus(), int(len(allowed_cpus()) - others + 0.3)))


def allowed_cpus() -> set[int]:
    """The CPUs in the affinity mask (or cpuset) of this process."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class Look:
    """The time on the clock and the CPU seconds spent until then: by everybody on the CPUs that this process may use
    (None where the system does not say), and by this process with its children, theirs and so on."""

    at: float = field(default_factory=time.monotonic)
    everybody: float | None = field(default_factory=lambda: _busy_seconds(allowed_cpus()))
    own: float = field(default_factory=lambda: _own_seconds())

    def age(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.at

    def others(self) -> float:
        """How many CPUs other programs have used since then, on average. Waits if that was a moment ago."""
        time.sleep(max(0.0, self.at + LOOK - time.monotonic()))
        now = Look()
        if self.everybody is None or now.everybody is None:
            return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        spent = now.everybody - self.everybody - (now.own - self.own)
        return max(0.0, spent / (now.at - self.at))


_begun: list[Look] = []


def begin_look() -> None:
    """Look at the load now; by the time that it is asked for, Python has loaded torch and some seconds have passed."""
    _begun[:] = [Look()]


def others_since_start() -> float:
    """CPUs that other programs have used since :func:`begin_look`, or for a moment from now on."""
    look = _begun.pop() if _begun else Look()
    return look.others()


def _own_seconds(proc: Path = _PROC) -> float:
    """CPU seconds of this process, of its children that have ended, and of all that live below it."""
    times = os.times()
    spent = time.process_time() + times.children_user + times.children_system
    parents, seconds = dict[int, int](), dict[int, float]()
    for folder in proc.glob("[0-9]*"):
        try:
            # The name in parentheses may hold anything; the parent is the second field after it.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(fields[1])
        seconds[int(folder.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return spent + sum(took for process, took in seconds.items() if _is_below(os.getpid(), process, parents))


def _is_below(ancestor: int, process: int, parents: Mapping[int, int]) -> bool:
    while process := parents.get(process, 0):
        if process == ancestor:
            return True
    return False


def _busy_seconds(cpus: set[int], proc: Path = _PROC) -> float | None:
    """What /proc/stat counts for ``cpus``, but idle and waiting for a disk; guests are in the users' part."""
    try:
        lines = (proc / "stat").read_text().splitlines()
    except OSError:
        return None
    total = 0
    for line in lines:
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            user, nice, system, _idle, _disk, *rest = map(int, ticks)
            total += user + nice + system + sum(rest[:3])
    return total / os.sysconf("SC_CLK_TCK")


def quota(proc: Path = _PROC) -> float | None:
    """The least number of CPUs that a cgroup of this process, or one above it, limits it to; None for no limit."""
    limits = [limit for folder in _cgroups(proc) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _cgroups(proc: Path) -> Iterator[Path]:
    """The folders of the cgroups that count CPU time for this process, each with those above it."""
    try:
        mounts = (proc / "self/mountinfo").read_text().splitlines()
        memberships = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    paths = {frozenset(names.split(",")): path for _, names, path in (line.split(":", 2) for line in memberships)}
    for mount in mounts:
        fields, _, filesystem = mount.partition(" - ")
        kind, options = (filesystem.split() or [""])[0], filesystem.split()[-1:]
        if kind == "cgroup2":
            path = paths.get(frozenset([""]))
        elif kind == "cgroup" and "cpu" in options[0].split(","):
            path = next((path for names, path in paths.items() if "cpu" in names), None)
        else:
            continue
        if path is not None:
            root, top = fields.split()[3:5]
            yield from _upwards(Path(top), path, root)


def _upwards(top: Path, path: str, root: str) -> Iterator[Path]:
    """``top``, where ``root`` of the tree is mounted, and the folders below it on the way to ``path``."""
    inner = PurePosixPath(path).relative_to(root) if PurePosixPath(path).is_relative_to(root) else PurePosixPath()
    yield top
    if ".." not in inner.parts:  # else it lies outside of what this container sees
        yield from (top / part for part in [inner, *inner.parents] if part.parts)


def _limit(folder: Path) -> float | None:
    """CPUs; version 2 of cgroups has one file for it, version 1 two."""
    try:
        if (folder / "cpu.max").is_file():
            most, period = (folder / "cpu.max").read_text().split()
        else:
            most = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return None if most == "max" or int(most) <= 0 else int(most) / int(period)
    except (OSError, ValueError):
        return None
