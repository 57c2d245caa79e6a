"""README's measured tables are what results/bench says, and what it says follows from its rounds."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from bench_records import check_record

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "write_bench_table.py"), run_name="script")


def test_the_readme_is_what_was_measured() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(SCRIPT["START"]) == 1 and readme.count(SCRIPT["END"]) == 1
    assert readme == SCRIPT["page"](readme), "run `python scripts/write_bench_table.py`"


@pytest.mark.parametrize("suite", SCRIPT["SUITES"])
def test_the_record_follows_from_its_rounds(suite: str) -> None:
    record = json.loads((ROOT / "results" / "bench" / f"{suite}.json").read_text(encoding="utf-8"))
    check_record(record, suite)
    assert "--quick" not in record["command"]


def test_everything_was_compared() -> None:
    records = SCRIPT["load"]()
    assert not [row for record in records.values() for row in record["rows"] if "skipped" in row]
    assert set(SCRIPT["LOSSES"]) | {"floor"} == {row["variant"] for row in records["kernels"]["rows"]}
