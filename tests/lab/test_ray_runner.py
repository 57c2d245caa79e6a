"""`drpo lab run --on ray` with Ray itself: a cluster of two nodes on this machine, and the one that drpo starts."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_runner import SETTINGS, files_of, finished, running, wait_until, workers

from drpo.errors import CheckpointError, ConfigError
from drpo.lab.directory import StudyDirectory
from drpo.lab.plan import Run, make_plan
from drpo.lab.results import read_rows
from drpo.lab.study import Study
from drpo.run_directory import RunDirectory
from support import command, studies

pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
from ray.cluster_utils import Cluster

from drpo.lab.ray_workers import RayWorkers, share

pytestmark = pytest.mark.slow

#: What depends on where and how fast a run was.
ELSEWHERE = {"seconds", "command"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes of one core each, and nothing sent to anyone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # Ray's 15 starves them beside other tests
        node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 1024**2}
        # Workers find the tests' modules as their runner does.
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


def runner(
    folder: Path,
    cluster: Cluster,
    study: Study,
    told: Callable[[Run], dict[str, Any]] = lambda run: {},
    unseen: bool = False,
) -> command.Process:
    """A runner in a process of its own, on the cluster; it prints what it starts and exits with 7 if it was stopped.

    ``unseen``: the nodes do not see the study's directory.
    """
    program = workers(folder, study, told).program[1:]
    (folder / "study.json").write_text(json.dumps(study.model_dump(exclude_none=True)))
    code = f"""
import dataclasses, json
from pathlib import Path
from drpo.lab.directory import StudyDirectory
from drpo.lab.ray_workers import RayWorkers
from drpo.lab.run import run_study
from drpo.lab.runner import Watcher
from drpo.lab.study import check_study
class Notes(Watcher):
    def on_start(self, run, resumed): print("continues" if resumed else "starts", run.path, flush=True)
class Unseen(RayWorkers):
    def start(self, arguments, log, directory, hold, slot):
        return super().start(arguments, log, StudyDirectory(directory.path / "elsewhere"), hold, slot)
study = check_study(json.loads(Path("study.json").read_text()), "test")
with {"Unseen" if unseen else "RayWorkers"}.connected(2) as workers:
    workers = dataclasses.replace(workers, program={tuple(program)!r})
    _, stopped = run_study(study, Path("D"), workers, Notes())
raise SystemExit(7 if stopped else 0)
"""
    environment = {"RAY_ADDRESS": cluster.address, "RAY_USAGE_STATS_ENABLED": "0"}
    return command.Process(["-c", code], folder, environment, group=True)


def statuses(study: Study, path: Path) -> dict[str, str]:
    runs = make_plan(study).shared
    return {f"{run.arm}-{run.seed}": state.status for run, state in StudyDirectory(path).states(runs).items()}


def gone(pid: int) -> bool:
    """Whether a process is at work no more; one that nobody has asked for its exit code still has a number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as stream:
        return [{key: value for key, value in row.items() if key not in ELSEWHERE} for row in csv.DictReader(stream)]


def test_threads_fit_on_nodes() -> None:
    assert share([2], 2) == (1, 2) and share([2], 0) == (1, 2) and share([8], 3) == (2, 4)
    assert share([4, 4, 4], 2) == (4, 3)  # not six: no node has as many
    assert share([4, 1], 2) == (2, 2) and share([1], 3) == (1, 1) and share([], 1) == (1, 1)


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1:1", "Connection refused"), ("127.0.0.1:x", "invalid literal")]
)
def test_a_cluster_that_does_not_answer(address: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=rf"no Ray cluster at RAY_ADDRESS={address}: .*{reason}"):
        RayWorkers.connected().__enter__()


def test_the_same_results_as_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real training by the command, on a cluster that drpo starts: every figure and every sample of every seed."""
    arms = {"drpo": {"objective": {"name": "drpo", "delta": 0.15}}}
    budget = {**studies.BUDGET, "steps": 3}
    studies.write(tmp_path / "study.yaml", arms=arms, budget=budget, settings=SETTINGS, seeds=[0, 1], hypotheses=None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    for where in ("local", "ray"):
        done = command.run(["lab", "run", "study.yaml", "--out", where, "--on", where], tmp_path, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    rows = table(tmp_path / "ray")
    assert len(rows) == 2 and {row["status"] for row in rows} == {"finished"} and rows == table(tmp_path / "local")
    for run in (tmp_path / "ray" / "runs").rglob("seed-?"):
        other = RunDirectory(tmp_path / "local" / run.relative_to(tmp_path / "ray"))
        assert RunDirectory(run).read_rollouts("step") == other.read_rollouts("step")
    started = [entry for entry in StudyDirectory(tmp_path / "ray").journal() if entry["event"] == "started"]
    assert len(started) == 2 and all(entry["ray_job"] and "pid" not in entry for entry in started)


def test_a_crash_is_a_row_and_the_others_go_on(tmp_path: Path, cluster: Cluster) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0, 1])
    crashing = runner(tmp_path, cluster, study, lambda run: {"crash_after": 2} if run.arm == "drpo" else {})
    out, err = crashing.communicate(timeout=600)
    assert crashing.returncode == 0, out + err
    runs, directory = make_plan(study).shared, StudyDirectory(tmp_path / "D")
    for row in read_rows(directory, runs, study):
        crashed = row["arm"] == "drpo"
        assert row["reason"] == ("exit code 3: the reason of the crash" if crashed else "")
        assert row["status"] == ("failed" if crashed else "finished")
    manifests = [RunDirectory(tmp_path / "D" / run.path).read_manifest() for run in runs]
    assert {manifest["threads"] for manifest in manifests} == {1}


def test_stopped_and_started_again_it_goes_on(tmp_path: Path, cluster: Cluster) -> None:
    """Ctrl-C lets every run finish its step. Killed runs and runners are left to the next runner, which goes on."""
    study, path = studies.study(settings=SETTINGS, seeds=[0, 1]), tmp_path / "D"

    def slow(run: Run) -> dict[str, Any]:
        return {"seconds": 1.0}

    first = runner(tmp_path, cluster, study, slow)
    wait_until(lambda: len(list(path.rglob("step-000001.jsonl"))) >= 2, 600)
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(timeout=600) == 7
    ended = {json.loads(file.read_text())["status"] for file in path.rglob("manifest.json")}
    assert ended <= {"interrupted", "finished"} and "interrupted" in ended
    assert StudyDirectory(path).journal()[-1]["event"] == "stopped"

    second = runner(tmp_path, cluster, study, slow)
    wait_until(lambda: len(running(path)) == 2, 600)
    orphans = running(path)
    with pytest.raises(CheckpointError, match="another runner is at work"), StudyDirectory(path).locked(print):
        pass
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()
    for pid in orphans:  # Ray ends the attendants, and the kernel their processes with them
        wait_until(lambda pid=pid: gone(pid), 60)
    before = {name: seen for run in finished(path) for name, seen in files_of(run).items()}

    third = runner(tmp_path, cluster, study)
    out, err = third.communicate(timeout=600)
    assert third.returncode == 0 and "continues" in out, out + err
    assert set(statuses(study, path).values()) == {"finished"}
    assert before == {name: seen for name, seen in files_of(path).items() if name in before}
    for run in make_plan(study).shared:  # every step once
        steps = [record["step"] for record in RunDirectory(path / run.path).read_metrics("update")]
        assert steps == [1, 2, 3, 4]


def test_a_second_signal_stops_at_once(tmp_path: Path, cluster: Cluster) -> None:
    study, path = studies.study(settings=SETTINGS, seeds=[0]), tmp_path / "D"
    stopping = runner(tmp_path, cluster, study, lambda run: {"seconds": 300})
    wait_until(lambda: len(running(path)) == 2, 600)
    pids = running(path)
    os.kill(stopping.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert stopping.poll() is None  # its runs finish their step
    os.kill(stopping.pid, signal.SIGTERM)
    assert stopping.wait(timeout=600) == 7
    for pid in pids:
        wait_until(lambda pid=pid: gone(pid), 60)


def test_a_lost_worker_is_a_run_that_did_not_end(tmp_path: Path, cluster: Cluster) -> None:
    study, path = studies.study(settings=SETTINGS, seeds=[0]), tmp_path / "D"
    losing = runner(tmp_path, cluster, study, lambda run: {"seconds": 1.0} if run.arm == "drpo" else {})
    run = RunDirectory(path / "runs/one/drpo/seed-0")
    wait_until(lambda: run.steps_sampled() == 1, 600)
    process = run.read_manifest()["pid"]
    stat = Path(f"/proc/{process}/stat").read_text()
    os.kill(int(stat.rsplit(")", 1)[1].split()[1]), signal.SIGKILL)  # its parent, the attendant
    out, err = losing.communicate(timeout=600)
    assert losing.returncode == 0, out + err
    wait_until(lambda: gone(process), 60)
    row, other = read_rows(StudyDirectory(path), make_plan(study).shared, study)
    assert row["status"] == "interrupted" and row["reason"].startswith("lost with its Ray worker: ")
    assert other["status"] == "finished"
    again = runner(tmp_path, cluster, study)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0 and out == "continues runs/one/drpo/seed-0\n", out + err
    assert set(statuses(study, path).values()) == {"finished"}


def test_a_node_that_does_not_see_the_directory_stops_the_study(tmp_path: Path, cluster: Cluster) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0])
    done = runner(tmp_path, cluster, study, unseen=True)
    _, err = done.communicate(timeout=6000)
    assert done.returncode == 1 and "ConfigError: Ray node " in err and "is not there or cannot be written to" in err
    assert "It must be on a file system that all nodes share; choose such an --out." in err
    assert set(statuses(study, tmp_path / "D").values()) == {"missing"}
