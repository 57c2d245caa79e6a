"""Free CPUs and their limits, from files as Linux writes them and from processes that are really busy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drpo.cpus import WAITING, Look, _own_seconds, allowed_cpus, free_cpus, quota, usable_cpus, wait_briefly


def proc(folder: Path, mounts: list[str], memberships: list[str]) -> Path:
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    (folder / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in memberships))
    return folder / "proc"


def limit(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"cpu.{name}").write_text(text + "\n")


def second_version(top: Path, root: str = "/") -> str:
    return f"24 30 0:22 {root} {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("150000 100000", 1.5),
        ("max 100000", None),
        ("50000 100000", 0.5),
        ("", None),
        ("x y", None),
    ],
)
def test_a_limit_of_version_two(tmp_path: Path, text: str, expected: float | None) -> None:
    limit(tmp_path / "cgroup", max=text)
    assert quota(proc(tmp_path, [second_version(tmp_path / "cgroup")], ["0::/"])) == expected


def test_the_least_limit_on_the_way_up_holds(tmp_path: Path) -> None:
    limit(tmp_path / "cgroup/a", max="200000 100000")
    limit(tmp_path / "cgroup/a/b", max="max 100000")
    limit(tmp_path / "cgroup/a/b/c", max="300000 100000")
    assert quota(proc(tmp_path, [second_version(tmp_path / "cgroup")], ["0::/a/b/c"])) == 2


@pytest.mark.parametrize("quota_us", ["250000", "-1"])
def test_a_limit_of_version_one_within_a_container(tmp_path: Path, quota_us: str) -> None:
    limit(tmp_path / "cpu", cfs_quota_us=quota_us, cfs_period_us="100000")
    mounts = [f"33 31 0:30 /docker/abc {tmp_path / 'cpu'} rw - cgroup cgroup rw,cpu,cpuacct", "1 1 0:1 / / rw - ext4"]
    found = quota(proc(tmp_path, mounts, ["4:cpu,cpuacct:/docker/abc", "3:memory:/docker/abc", "0::/"]))
    assert found == (2.5 if quota_us == "250000" else None)


@pytest.mark.parametrize("membership", ["0::/../..", "0::/gone", "5:cpuset:/"])
def test_a_cgroup_that_cannot_be_seen_sets_no_limit(tmp_path: Path, membership: str) -> None:
    (tmp_path / "cgroup").mkdir()
    assert quota(proc(tmp_path, [second_version(tmp_path / "cgroup")], [membership])) is None


def test_no_such_files_set_no_limit(tmp_path: Path) -> None:
    assert quota(tmp_path) is None


def test_a_limit_below_the_mask_is_what_is_usable(tmp_path: Path) -> None:
    limit(tmp_path / "cgroup", max="100000 100000")
    assert usable_cpus(proc(tmp_path, [second_version(tmp_path / "cgroup")], ["0::/"])) == 1


def test_a_busy_process_is_seen_and_this_one_is_not() -> None:
    # The shell ends at once, so that the process is nobody's child.
    script = '"$0" -c "print(flush=True)\nwhile True: pass" & echo $!'
    started = subprocess.Popen(["sh", "-c", script, sys.executable], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    said = {started.stdout.readline(), started.stdout.readline()}  # its number and its empty line, in either order
    (spinning,) = [int(line) for line in said if line.strip()]
    try:
        look = Look()
        while look.age() < 1:  # busy as well
            pass
        # This process and that one want two CPUs; whatever else runs, the other one got a share.
        assert 0.1 < look.others() < len(allowed_cpus()) + 0.1
    finally:
        os.kill(spinning, signal.SIGKILL)
        started.wait()
        started.stdout.close()


def test_what_a_child_of_a_child_spends_is_not_others() -> None:
    spin = "import time\nend = time.process_time() + 2\nwhile time.process_time() < end: pass\ninput()"
    middle = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r}])"
    child = subprocess.Popen([sys.executable, "-c", middle], stdin=subprocess.PIPE)
    look = _own_seconds()
    deadline = time.monotonic() + 120
    while _own_seconds() < look + 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.communicate(b"\n")
    assert _own_seconds() >= look + 2  # as well when both have ended


def test_a_cpu_counts_as_free_that_is_idle_most_of_the_time() -> None:
    cpus = usable_cpus()
    assert [free_cpus(others) for others in (0.0, 0.2, cpus - 1, cpus, cpus + 3)] == [cpus, cpus, 1, 1, 1]


@pytest.mark.parametrize("chosen", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_how_threads_wait_is_set_unless_the_user_did(chosen: str) -> None:
    free: dict[str, str] = {}
    wait_briefly(free)
    assert free == WAITING
    taken = {chosen: "active"}
    wait_briefly(taken)
    assert taken == {chosen: "active"}


def test_the_command_line_sets_it_before_torch_is_loaded() -> None:
    code = (
        "import os, sys\nfrom drpo.cli import main\nfrom drpo import cpus\n"
        "assert 'torch' not in sys.modules\nsys.argv = ['drpo', '--help']\n"
        "try: main()\nfinally: assert os.environ['GOMP_SPINCOUNT'] == cpus.WAITING['GOMP_SPINCOUNT']\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment.pop("OMP_WAIT_POLICY", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
