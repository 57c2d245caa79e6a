"""Runs that are forked from a process that has loaded torch: real processes, real runs."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drpo.lab.run import run_study
from drpo.lab.runner import Watcher
from drpo.lab.study import check_study
from drpo.lab.warm import ForkedRun, Parent
from drpo.lab.workers import Ended, LocalWorkers
from tools import same_runs

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux alone")]

#: So many steps that the run is at work until it is ended.
ENDLESS = ["train", "steps=100000", "eval_examples=8", "eval_every=0"]


def wait(for_what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not for_what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def parent() -> Iterator[Parent]:
    made = Parent(dict(os.environ) | {"OMP_NUM_THREADS": "1"})
    yield made
    made.close()
    assert made.process.returncode is not None


def fork(parent: Parent, arguments: list[str], log: Path, held: int | None = None) -> ForkedRun:
    with open(os.devnull) as nothing:
        process = parent.fork(arguments, log, {**os.environ, "COLUMNS": "90"}, held or nothing.fileno())
    assert process is not None
    return ForkedRun(parent, process)


def ended(run: ForkedRun) -> Ended:
    wait(lambda: run.ended() is not None)
    found = run.ended()
    assert found is not None
    return found


def test_it_is_the_command_line_with_its_output_and_exit_code(parent: Parent, tmp_path: Path) -> None:
    log = tmp_path / "folder" / "log"
    assert ended(fork(parent, ["objectives", "drpo"], log)).code == 0
    assert "divergence-regularized" in log.read_text().lower()
    assert ended(fork(parent, ["train", "lr=1"], log)).code == 2
    text = log.read_text()
    assert "learning_rate" in text and text.index("learning_rate") > text.lower().index("divergence-regularized")


def test_runs_at_once_hold_the_study_until_each_is_ended(parent: Parent, tmp_path: Path) -> None:
    file = (tmp_path / "lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    runs = [
        fork(parent, [*ENDLESS, "--out", str(tmp_path / name)], tmp_path / f"{name}.log", file.fileno())
        for name in "ab"
    ]
    file.close()
    wait(lambda: all((tmp_path / name / "metrics.jsonl").exists() for name in "ab"))
    assert [run.ended() for run in runs] == [None, None]
    assert all(os.getpgid(run.process) == run.process for run in runs)
    runs[0].kill()
    assert ended(runs[0]).code == -signal.SIGKILL
    with (tmp_path / "lock").open("w") as again, pytest.raises(BlockingIOError):
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    runs[1].stop()
    assert ended(runs[1]).code is not None
    assert (tmp_path / "b" / "checkpoints").is_dir()
    with (tmp_path / "lock").open("w") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for run in runs:  # both are gone: nothing to do
        run.kill()
        run.stop()


def test_a_run_outlives_its_parent(tmp_path: Path) -> None:
    made = Parent(dict(os.environ) | {"OMP_NUM_THREADS": "1"})
    run = fork(made, [*ENDLESS, "--out", str(tmp_path / "run")], tmp_path / "log")
    wait(lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    made.process.kill()
    made.process.wait()
    assert run.ended() is None
    with open(os.devnull) as nothing:
        assert made.fork(["objectives"], tmp_path / "log", dict(os.environ), nothing.fileno()) is None
    run.kill()
    assert "gone" in ended(run).lost
    made.close()


def test_a_study_is_the_same_to_the_bit_as_from_fresh_processes(tmp_path: Path) -> None:
    small = {"steps": 2, "prompts_per_step": 2, "group_size": 2, "updates_per_step": 2, "eval_every": 1}
    study = check_study(
        {
            "title": "Tiny",
            "question": "The same?",
            "base": {"model": "embedded:arithmetic", **small, "eval_examples": 4, "checkpoint_every": 2},
            "settings": {"arithmetic": {"eval_final": {"examples": 4, "samples": 1}}},
            "arms": {"drpo": {"objective": {"name": "drpo", "delta": 0.15}}},
            "seeds": [0],
        },
        "tiny",
    )
    for name, warm in (("warm", True), ("fresh", False)):
        workers = LocalWorkers(1, 1, warm=warm)
        _, stopped = run_study(study, tmp_path / name, workers, Watcher())
        assert not stopped and bool(workers._parents) is warm
    warm, fresh = (same_runs.runs(tmp_path / name) for name in ("warm", "fresh"))
    assert warm and warm.keys() == fresh.keys()
    assert [same_runs.difference(warm[name], fresh[name]) for name in warm] == [""] * len(warm)
