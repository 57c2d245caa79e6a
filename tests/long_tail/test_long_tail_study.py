"""The long-tail study's runner and verdicts: nothing is run twice or lost, and the statistics are stats.py's."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import numpy as np
import pytest

from drpo.errors import CheckpointError, DataError
from drpo.lab import statistics as stats
from examples.long_tail import records
from examples.long_tail.analysis import Evaluated, evaluate, verdicts
from examples.long_tail.records import Run
from examples.long_tail.study import ARMS, HYPOTHESES, PLAN, QUICK, SETTINGS, Cell
from examples.long_tail.tables import arms_table, below_logging, collapsed, sentences, verdicts_table
from examples.long_tail.training import FIGURES, Outcome
from support import command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAME = "short-linear"


def start(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = ["-m", "examples.long_tail", "--quick", "--settings", NAME, "--out", out, *more]
    return command.python(arguments, ROOT, timeout=600)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    done = start(out)
    assert done.returncode == 0, done.stderr
    return out


def rows(out: Path) -> list[dict[str, str]]:
    """The table without what differs from time to time."""
    with (out / f"{NAME}.csv").open(encoding="utf-8", newline="") as lines:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(lines)]


def key(row: dict[str, str]) -> tuple[str, str, str, int]:
    return row["arm"], row["threshold"], row["learning_rate"], int(row["seed"])


def test_every_run_is_there_once(quick: Path) -> None:
    runs = records.read(quick / f"{NAME}.csv")
    assert len({(run.cell, run.seed) for run in runs}) == len(runs)
    found = evaluate(runs, QUICK)
    tuned = {cell for cell in found.tuned if cell.arm != "drpo_12.5"}
    assert {(cell.arm, cell.threshold) for cell in tuned} == {
        (name, bound) for name, arm in ARMS.items() if name != "drpo_12.5" for bound in arm.thresholds
    }
    assert set(found.best) == set(found.shared) == set(ARMS)
    assert all([run.seed for run in found.runs[cell]] == list(QUICK.seeds) for cell in found.runs)
    assert not set(QUICK.seeds) & set(QUICK.tuning_seeds) and not set(PLAN.seeds) & set(PLAN.tuning_seeds)


def test_a_quick_study_improves_on_the_logging_policy(quick: Path) -> None:
    runs = records.read(quick / f"{NAME}.csv")
    found = evaluate(runs, QUICK)
    for name in ("surrogate", "ppo", "drpo"):
        assert (found.scores(found.best[name]) > found.scores(found.best[name], lambda run: run.start)).all()


def test_going_on_repeats_nothing_and_gives_the_same(quick: Path, tmp_path: Path) -> None:
    text = (quick / f"{NAME}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    half = len(text) // 2
    (tmp_path / f"{NAME}.csv").write_text("".join(text[:half]) + text[half][:40], encoding="utf-8")  # killed in a line
    (tmp_path / f"{NAME}.json").write_text((quick / f"{NAME}.json").read_text(encoding="utf-8"), encoding="utf-8")
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr
    kept = (tmp_path / f"{NAME}.csv").read_text(encoding="utf-8").splitlines(keepends=True)[:half]
    assert kept == text[:half]  # their seconds too
    assert sorted(rows(tmp_path), key=key) == sorted(rows(quick), key=key)
    assert len(done.stdout.splitlines()) == len(text) - half
    assert start(quick).stdout == ""


def test_another_study_s_folder_is_refused(quick: Path) -> None:
    described = records.description(SETTINGS[NAME], PLAN)
    with pytest.raises(CheckpointError, match="plan differ"):
        records.check_same(quick / f"{NAME}.json", described)
    records.check_same(quick / "none.json", described)
    records.check_same(quick / f"{NAME}.json", records.description(SETTINGS[NAME], QUICK))


def test_a_row_is_read_as_it_was_written(tmp_path: Path) -> None:
    figures = dict.fromkeys(FIGURES, 0.125)
    runs = [
        Run(Cell("ppo", 0.2, 0.01), 7, 1.5, Outcome([0.25, 0.5, 0.75], figures)),
        Run(Cell("spo", 5.0, 0.1), 8, 2.5, Outcome([0.25, 0.0, 0.0], figures, 'a reason, with "commas"\nand lines')),
    ]
    records.rewrite(tmp_path / "a.csv", runs[:1])
    records.append(tmp_path / "a.csv", runs[1])
    assert records.read(tmp_path / "a.csv") == runs
    assert records.read(tmp_path / "none.csv") == []
    whole = (tmp_path / "a.csv").read_text(encoding="utf-8")
    for missing in range(1, whole.index("\n")):  # killed while it wrote the last row, wherever
        (tmp_path / "a.csv").write_text(whole[:-missing], encoding="utf-8")
        assert records.read(tmp_path / "a.csv") == runs[:1]


# ---- verdicts


def made_up(finals: dict[str, np.ndarray]) -> Evaluated:
    """Arms with given final values."""
    cells = {name: Cell(name, arm.thresholds[0], 0.1) for name, arm in ARMS.items()}
    runs = {
        cell: [
            Run(cell, seed, 0.0, Outcome([0.3, *[value] * 3], dict.fromkeys(FIGURES, 0.0)))
            for seed, value in enumerate(finals[name])
        ]
        for name, cell in cells.items()
    }
    return Evaluated(dict.fromkeys(cells.values(), 0.5), 0.1, cells, cells, runs)


def test_verdicts_are_paired_and_corrected_over_all_hypotheses() -> None:
    generator = np.random.default_rng(0)
    common = generator.normal(0.5, 0.1, 10)  # what seeds have in common must not matter
    finals = {name: common + generator.normal(0, 0.01, 10) for name in ARMS}
    finals["drpo"] = finals["drpo"] + 0.05
    finals["ppo"] = finals["ppo"] + 0.1
    settings = {"one": made_up(finals), "two": made_up({**finals, "drpo": finals["drpo"][::-1]})}
    found = verdicts(settings)
    assert [(v.setting, v.ours, v.theirs) for v in found] == [(s, *pair) for s in settings for pair in HYPOTHESES]
    said = {(v.setting, v.ours, v.theirs): v.said for v in found}
    assert said["one", "drpo", "surrogate"] == "better" and said["one", "drpo", "ppo"] == "worse"
    assert said["one", "dppo_tv", "ppo"] == "worse" and said["one", "dppo_tv", "surrogate"] == "undecided"
    assert said["two", "drpo", "surrogate"] == "undecided"  # the seeds no longer pair up
    raw = [stats.paired_difference([finals["drpo"]], [finals[other]]).p for other in ("surrogate", "ppo")]
    assert found[0].difference.p == pytest.approx(raw[0]) and found[1].difference.p == pytest.approx(raw[1])
    assert [v.p for v in found] == stats.holm([v.difference.p for v in found])
    lines = verdicts_table(found[:11], found[:11])
    assert len(lines) == 2 + len(HYPOTHESES) and "| better |" in lines[2] and "−0.0" in lines[3]
    assert sentences(found[:11])[0].startswith("- `drpo`: better than `surrogate`, ")


def test_a_missing_run_is_no_verdict(quick: Path) -> None:
    runs = records.read(quick / f"{NAME}.csv")
    with pytest.raises(DataError, match="lacks runs"):
        evaluate(runs[:-1], QUICK)


def test_collapse_and_harm_are_counted_by_hand() -> None:
    figures = dict.fromkeys(FIGURES, 0.0)
    fallen, worse, fine = (
        Run(Cell("drpo", 0.002, 0.1), seed, 0.0, Outcome(curve, figures))
        for seed, curve in enumerate([[0.3, 0.9, 0.4, 0.4, 0.4], [0.3, 0.35, 0.2, 0.2, 0.2], [0.3, 0.4, 0.4, 0.4, 0.4]])
    )
    assert [collapsed(run) for run in (fallen, worse, fine)] == [True, False, False]
    assert [below_logging(run) for run in (fallen, worse, fine)] == [False, True, False]
    found = made_up(dict.fromkeys(ARMS, np.array([0.4, 0.5])))
    cell = found.best["drpo"]
    runs = {**found.runs, cell: [fallen, worse, fine]}
    lines = arms_table(Evaluated(found.tuned, 0.1, found.best, found.shared, runs))
    assert "| 1/3 | 1/3 |" in lines[2 + list(ARMS).index("drpo")]
