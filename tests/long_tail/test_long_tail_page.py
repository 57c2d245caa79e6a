"""The records behind docs/long-tail.md: all that was planned was measured, and their numbers follow from curves."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.long_tail import records
from examples.long_tail.runner import evaluated, tuned_scores
from examples.long_tail.study import PLAN, SETTINGS, tuning_cells
from tools.docs import long_tail_page


@pytest.mark.parametrize("name", SETTINGS)
def test_every_planned_run_is_in_the_table_once(name: str) -> None:
    runs = long_tail_page.runs(name)
    planned = {(cell, seed) for cell in tuning_cells(SETTINGS[name]) for seed in PLAN.tuning_seeds}
    planned |= {(cell, seed) for cell in evaluated(tuned_scores(runs, PLAN)) for seed in PLAN.seeds}
    assert {(run.cell, run.seed) for run in runs} == planned and len(runs) == len(planned)
    described = records.description(SETTINGS[name], PLAN)
    record = long_tail_page.record(name)
    assert {key: record[key] for key in described} == described and "--quick" not in record["command"]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_table_s_numbers_follow_from_its_curves(name: str, tmp_path: Path) -> None:
    records.rewrite(tmp_path / "again.csv", long_tail_page.runs(name))
    assert (tmp_path / "again.csv").read_text() == (long_tail_page.FOLDER / f"{name}.csv").read_text()


@pytest.mark.parametrize("seed", [*PLAN.tuning_seeds, *PLAN.seeds])
def test_all_arms_of_a_seed_start_at_the_same_policy(seed: int) -> None:
    for name in SETTINGS:
        assert len({run.start for run in long_tail_page.runs(name) if run.seed == seed}) == 1
