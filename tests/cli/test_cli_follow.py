"""`drpo inspect --follow` as a process: what it prints when something is logged, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from drpo.run_directory import RunDirectory
from support import command

pytestmark = pytest.mark.slow
REFRESH = '<meta http-equiv="refresh" content="10">'


def response(step: int, seed: int) -> dict[str, Any]:
    draw = random.Random(f"{step} {seed}")
    mu = [-3 * draw.random() for _ in range(50)]
    pi = [value * draw.uniform(0.6, 1.4) for value in mu]
    return {"logprobs": pi, "behavior_logprobs": mu, "advantage": draw.choice([-1.0, 1.0]), "step": step}


def write_step(run: RunDirectory, step: int) -> None:
    run.write_tokens(step, [response(step, seed) for seed in range(4)])


class Process:
    """A command that is still running."""

    def __init__(self, process: command.Process, printed: IO[str], complained: IO[str]):
        self.process, self.printed, self.complained = process, printed, complained
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> str:
        """The next line that matches; the test's time limit ends an endless wait."""
        for line in self.printed:
            self.lines.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"{pattern!r} did not come:\n{''.join(self.lines)}{self.errors()}")

    def errors(self) -> str:
        return self.complained.read()

    def end(self) -> tuple[int, str, str]:
        """Exit status, what else was printed, and errors."""
        return self.process.wait(timeout=120), self.printed.read(), self.errors()


@contextmanager
def following(*arguments: object) -> Iterator[Process]:
    words = ["-m", "drpo", "inspect", *arguments, "--follow"]
    (out, out_end), (errors, errors_end) = os.pipe(), os.pipe()
    with open(os.devnull) as nothing, open(out) as printed, open(errors) as complained:
        try:
            streams = [nothing.fileno(), out_end, errors_end]
            process = command.Process(words, environment={"COLUMNS": "200"}, streams=streams)
        finally:
            os.close(out_end)
            os.close(errors_end)
        try:
            yield Process(process, printed, complained)
        finally:
            process.kill()


def test_a_run_from_before_its_first_token_to_its_end(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with following(run.path, "--objectives", "drpo,ppo") as watched:
        watched.wait_for("waiting for .*run, which does not exist yet")
        run.create({"objective": {"name": "drpo", "delta": 0.1}}, {"status": "running"})
        watched.wait_for("waiting for the first tokens of .*run")
        for step in (1, 2):
            write_step(run, step)
            line = watched.wait_for("^step ")
            assert line.startswith(f"step {step}: {200 * step} tokens of {4 * step} responses. The ")
        page = run.inspection_file.read_text()
        assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>") and REFRESH in page
        write_step(run, 3)
        run.write_manifest({"status": "finished"})
        status, out, errors = watched.end()
    assert status == 0 and not errors and REFRESH not in run.inspection_file.read_text()
    printed = "".join(watched.lines) + out
    plain = command.run(["inspect", run.path, "--objectives", "drpo,ppo"], environment={"COLUMNS": "200"})
    assert printed.endswith(plain.stdout) and "600 tokens of 12 responses in 3 files; δ = 0.1" in plain.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("gate", "status"), [([], 0), (["--max", "shift_max=0.0001"], 1), (["--max", "shift_max=1"], 0)]
)
def test_a_signal_ends_it_with_what_was_found(
    tmp_path: Path, number: signal.Signals, gate: list[str], status: int
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(response(1, 0)) + "\n" + json.dumps(response(1, 1))[:20])
    with following(log, "--objectives", "drpo", *gate) as watched:
        watched.wait_for("^step 1: 50 tokens of 1 responses")
        watched.process.send_signal(number)
        found, out, errors = watched.end()
    assert found == status and ("failed  shift_max" in errors) == bool(status) and "Traceback" not in errors
    assert "still being written" in out and f"page  {tmp_path / 'inspection.html'}" in out


def test_a_signal_before_there_is_a_token_is_told(tmp_path: Path) -> None:
    with following(tmp_path, "--fail-on", "fault") as watched:
        watched.wait_for("waiting for the first tokens of")
        watched.process.send_signal(signal.SIGINT)
        status, _, errors = watched.end()
    assert status == 2 and "holds neither a run nor token logs" in errors and errors.count("\n") == 1


def test_a_run_that_ends_without_tokens(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create({}, {"status": "running"})
    with following(run.path) as watched:
        watched.wait_for("waiting for the first tokens of")
        run.write_manifest({"status": "failed"})
        status, _, errors = watched.end()
    assert status == 2 and "logged no tokens. Start the run again with log_tokens=sample" in errors


def test_a_malformed_line_is_one_message(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(response(1, 0)) + "\n")
    with following(log, "--objectives", "drpo") as watched:
        watched.wait_for("^step 1: ")
        with log.open("a") as stream:
            stream.write("{]}\n")
        status, _, errors = watched.end()
    assert status == 2 and "log.jsonl, line 2: not JSON" in errors and errors.count("\n") == 1


def test_a_disk_that_refuses_the_page_is_said_once_and_asked_again(tmp_path: Path) -> None:
    log, page = tmp_path / "log.jsonl", tmp_path / "later" / "page.html"
    with following(log, "--objectives", "drpo", "--html", page) as watched:
        watched.wait_for("which does not exist yet")
        for seed in range(3):
            with log.open("a") as stream:
                stream.write(json.dumps(response(1, seed)) + "\n")
            watched.wait_for(f"^step 1: {50 * (seed + 1)} tokens")
            if seed == 0:
                watched.wait_for("cannot write to .*page.html: No such file or directory.*It is tried again")
            if seed == 1:
                page.parent.mkdir()
        watched.process.send_signal(signal.SIGINT)
        status, out, errors = watched.end()
    assert status == 0 and not errors and page.is_file() and "tried again" not in out
    assert sum("tried again" in line for line in watched.lines) == 1


def test_a_disk_that_refuses_the_last_page_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(response(1, 0)) + "\n")
    with following(log, "--objectives", "drpo", "--html", tmp_path / "none" / "page.html") as watched:
        watched.wait_for("It is tried again")
        watched.process.send_signal(signal.SIGINT)
        status, out, errors = watched.end()
    assert status == 2 and "cannot write to" in errors and "50 tokens of 1 responses" in out


def test_a_log_that_is_written_anew_is_said(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(response(1, 0)) + "\n" + json.dumps(response(1, 1)) + "\n")
    with following(log, "--objectives", "drpo") as watched:
        watched.wait_for("^step 1: 100 tokens")
        log.write_text(json.dumps(response(2, 0)) + "\n")
        watched.wait_for("log.jsonl was written anew: the log is read from its beginning")
        watched.wait_for("^step 2: 50 tokens")
        watched.process.send_signal(signal.SIGINT)
        assert watched.end()[0] == 0


def test_another_log_is_held_beside_it(tmp_path: Path) -> None:
    for name, step in (("log", 1), ("other", 2)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(response(step, 0)) + "\n")
    with following(tmp_path / "log.jsonl", "--objectives", "drpo", "--against", tmp_path / "other.jsonl") as watched:
        watched.wait_for("^step 1: ")
        watched.process.send_signal(signal.SIGINT)
        status, out, _ = watched.end()
    assert status == 0 and re.search(r"Against +\S*other.jsonl", out)
    assert f"Against {tmp_path}" in (tmp_path / "inspection.html").read_text()


def test_on_a_terminal_it_shows_all_in_place(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({**response(1, 0), "texts": ["\x1b[31m"] * 50}) + "\n")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "drpo", "inspect", str(log), "--objectives", "drpo", "--all", "--follow"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "LINES": "60", "TERM": "xterm"}
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = read_until(ours, b"50 tokens of 1 responses")
        with log.open("a") as stream:
            stream.write(json.dumps(response(2, 0)) + "\n")
        shown += read_until(ours, b"100 tokens of 2 responses")
        process.send_signal(signal.SIGINT)
        last = read_until(ours, b"inspection.html")
        assert process.wait(timeout=120) == 0
    os.close(ours)
    assert b"following; Ctrl-C ends" in shown and b"following; Ctrl-C" not in last.split(b"tokens of")[-1]
    assert b"\x1b[31m" not in shown.replace(b"\x1b[1;31m", b"")
    assert b"By \xce\xbc" in last or b"Most affected" in last


def read_until(descriptor: int, text: bytes) -> bytes:
    found = b""
    while text not in found:
        found += os.read(descriptor, 65536)
    return found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json"], "--follow prints as it goes, and --json one result"),
        (["--markdown"], "--follow prints as it goes, and --markdown one result"),
        (["--last", "2"], "--last and --follow do not go together"),
        (["--objectives", "grop"], "unknown objective 'grop'"),
        (["--map", "logprob"], "is not COLUMN=NAME"),
    ],
)
def test_options_that_contradict_following(tmp_path: Path, options: list[str], message: str) -> None:
    refused = command.run(["inspect", tmp_path, "--follow", *options])
    assert refused.returncode == 2 and message in refused.stderr and refused.stderr.count("\n") == 1
    piped = command.run(["inspect", "-", "--follow"])
    assert piped.returncode == 2 and "- is the standard input" in piped.stderr
