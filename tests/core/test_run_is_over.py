"""Whether a run goes on, as its manifest and the process that trains there say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from drpo.locking import last_holder
from drpo.run_directory import RunDirectory

PROGRAM = (
    "import sys\nfrom drpo.run_directory import RunDirectory\n"
    "with RunDirectory(sys.argv[1]).locked(print):\n    print(flush=True)\n    sys.stdin.read()\n"
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.create({}, {"status": "running"})
    return run


@contextmanager
def training(run: RunDirectory) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the directory."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        yield process
        process.stdin.close()


def ended(seconds: float, **values: Any) -> dict[str, Any]:
    """A manifest of a run that ended so many seconds from now."""
    moment = datetime.now().astimezone() + timedelta(seconds=seconds)
    return {"status": "interrupted", "ended": moment.isoformat(timespec="seconds"), **values}


def test_a_run_goes_on_until_its_manifest_says_otherwise(run: RunDirectory) -> None:
    assert not run.is_over()  # nobody holds it: a process on a file system without locks, perhaps
    with training(run):
        assert not run.is_over()
        run.write_manifest(ended(60))
        assert run.is_over()
    assert run.is_over()


def test_a_run_whose_process_was_killed_is_over(run: RunDirectory) -> None:
    with training(run) as process:
        process.kill()
        process.wait()
        assert run.is_over()


def test_a_run_that_a_process_is_about_to_continue_is_not_over(run: RunDirectory) -> None:
    run.write_manifest(ended(-60))
    assert run.is_over()
    with training(run) as process:
        assert not run.is_over()
        process.kill()
        process.wait()
        assert run.is_over()


def test_of_a_process_on_another_machine_nothing_is_known(run: RunDirectory) -> None:
    run.lock_file.write_text(json.dumps({"pid": 2**22 + 1, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}))
    assert not run.is_over()
    run.write_manifest({"status": "finished", "ended": "2025-12-31T00:00:00+00:00"})
    assert not run.is_over()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"pid": "x", "host": "a", "since": "b"}', '{"pid": 1, "host": "a", "since": 5}', "\0"],
)
def test_a_lock_that_names_nobody(run: RunDirectory, text: str) -> None:
    run.lock_file.write_text(text)
    assert last_holder(run.lock_file) is None and not run.is_over()
    for when in ("", "yesterday", None, 5):
        run.write_manifest({"status": "failed", "ended": when})
        assert run.is_over()


@pytest.mark.parametrize("pid", [0, -1, 2**70, None])
def test_only_a_process_that_can_be_gone_is(run: RunDirectory, pid: int | None) -> None:
    pid = os.getpid() if pid is None else pid
    since = datetime.now().astimezone().isoformat()
    run.lock_file.write_text(json.dumps({"pid": pid, "host": os.uname().nodename, "since": since}))
    holder = last_holder(run.lock_file)
    assert holder is not None and not holder.is_gone()
    run.lock_file.write_text(json.dumps({"pid": pid, "host": os.uname().nodename, "since": "2026-01-01T00:00:00"}))
    run.write_manifest(ended(0))
    assert run.is_over()  # a time without a zone
