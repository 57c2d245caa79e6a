"""docs/long-tail.md is what was measured, and all that was planned was measured."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from drpo.lab.long_tail import records
from drpo.lab.long_tail.runner import evaluated, tuned_scores
from drpo.lab.long_tail.study import PLAN, SETTINGS, tuning_cells

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "write_long_tail_page.py"), run_name="script")


def test_the_page_is_what_was_measured() -> None:
    text = SCRIPT["PAGE"].read_text(encoding="utf-8")
    assert text.count(SCRIPT["START"]) == 1 and text.count(SCRIPT["END"]) == 1
    assert text == SCRIPT["page"](text), "run `python scripts/write_long_tail_page.py`"
    assert SCRIPT["FIGURE"].is_file()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_planned_run_is_in_the_table_once(name: str) -> None:
    runs = SCRIPT["runs"](name)
    planned = {(cell, seed) for cell in tuning_cells(SETTINGS[name]) for seed in PLAN.tuning_seeds}
    planned |= {(cell, seed) for cell in evaluated(tuned_scores(runs, PLAN)) for seed in PLAN.seeds}
    assert {(run.cell, run.seed) for run in runs} == planned and len(runs) == len(planned)
    described = records.description(SETTINGS[name], PLAN)
    record = SCRIPT["record"](name)
    assert {key: record[key] for key in described} == described and "--quick" not in record["command"]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_table_s_numbers_follow_from_its_curves(name: str, tmp_path: Path) -> None:
    records.rewrite(tmp_path / "again.csv", SCRIPT["runs"](name))
    assert (tmp_path / "again.csv").read_text() == (SCRIPT["FOLDER"] / f"{name}.csv").read_text()


@pytest.mark.parametrize("seed", [*PLAN.tuning_seeds, *PLAN.seeds])
def test_all_arms_of_a_seed_start_at_the_same_policy(seed: int) -> None:
    for name in SETTINGS:
        assert len({run.start for run in SCRIPT["runs"](name) if run.seed == seed}) == 1
