"""recipe:studies/smoke for real: `drpo lab run`, killed on the way, and left alone."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from drpo.run_directory import RunDirectory
from support import command

pytestmark = pytest.mark.slow

STUDY = "recipe:studies/smoke"
#: What depends on where and how fast a run was.
ELSEWHERE = {"seconds", "command"}


def start(out: Path) -> command.Process:
    return command.Process(["-m", "drpo", "lab", "run", STUDY, "--out", out, "--jobs", "2"], group=True)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as stream:
        return [{key: value for key, value in row.items() if key not in ELSEWHERE} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The study, run without disturbance, and what was printed."""
    out = tmp_path_factory.mktemp("lab") / "whole"
    study = start(out)
    printed, errors = study.communicate(timeout=180)
    assert study.returncode == 0, printed + errors
    return out, printed


def test_it_says_what_came_out(whole: tuple[Path, str]) -> None:
    out, printed = whole
    rows = table(out)
    assert [(row["arm"], row["seed"], row["status"]) for row in rows] == [
        (arm, seed, "finished") for seed in "01" for arm in ("drpo", "dppo_tv")
    ]
    for row in rows:
        run = RunDirectory(out / "runs" / "arithmetic" / row["arm"] / f"seed-{row['seed']}")
        last = [record["accuracy"] for record in run.read_metrics("evaluation")][-3:]
        assert float(row["final_accuracy"]) == pytest.approx(sum(last) / 3)
        assert 0 < float(row["shift"]) < 0.1 and int(row["tokens"]) > 1000
    # The same seed draws the same first batch in every arm; another seed another one.
    first = {(row["arm"], row["seed"]): row["accuracy_before"] for row in rows}
    assert first["drpo", "0"] == first["dppo_tv", "0"] and first["drpo", "1"] == first["dppo_tv", "1"]
    (verdict,) = json.loads((out / "verdicts.json").read_text())["verdicts"]
    assert verdict["sentence"] in printed and verdict["seeds"] == 2
    assert re.search(
        r"In arithmetic, .*drpo .* than dppo_tv in final accuracy \(difference [+-]0\.\d{3}, 95 % confidence interval",
        verdict["sentence"],
    )
    assert "runs    4 finished" in printed and printed.count("starts  runs/arithmetic/") == 4


def test_a_second_start_runs_nothing(whole: tuple[Path, str]) -> None:
    out, _ = whole
    seen = {file: file.stat().st_mtime_ns for file in (out / "runs").rglob("*")}
    again = start(out)
    printed, _ = again.communicate(timeout=180)
    assert again.returncode == 0 and "starts" not in printed and "runs    4 finished" in printed
    assert {file: file.stat().st_mtime_ns for file in (out / "runs").rglob("*")} == seen


def test_killed_and_started_again_it_comes_to_the_same_figures(whole: tuple[Path, str], tmp_path: Path) -> None:
    """Runner and runs get a SIGKILL once two runs have finished and a third has a checkpoint behind it."""
    out = tmp_path / "killed"
    runner = start(out)
    seeds = [out / "runs" / "arithmetic" / arm / f"seed-{seed}" for seed in (0, 1) for arm in ("drpo", "dppo_tv")]

    def status(path: Path) -> str | None:
        return RunDirectory(path).read_manifest().get("status")

    deadline = time.monotonic() + 180
    while not any(RunDirectory(path).checkpoints.joinpath("step-000002").is_dir() for path in seeds[2:]):
        assert time.monotonic() < deadline and runner.poll() is None
        time.sleep(0.02)
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    journal = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    ended = {entry["run"] for entry in journal if entry["event"] == "ended"}
    for entry in journal:
        if entry["event"] == "started" and entry["run"] not in ended:
            os.killpg(entry["pid"], signal.SIGKILL)
    done = [path for path in seeds if status(path) == "finished"]
    assert len(done) >= 2 and len(done) < 4
    seen = {
        file: (file.stat().st_mtime_ns, file.stat().st_ino)
        for path in done
        for file in path.rglob("*")
        if "checkpoints" not in file.parts
    }

    again = start(out)
    printed, errors = again.communicate(timeout=180)
    assert again.returncode == 0, printed + errors
    assert "continues  runs/arithmetic/" in printed
    assert seen == {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in seen}
    assert table(out) == table(whole[0])
