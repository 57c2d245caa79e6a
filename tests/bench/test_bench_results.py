"""The pages of speed are what results/bench says, and what it says follows from its rounds."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from support.bench_records import check_record

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "write_bench_table.py"), run_name="script")


@pytest.mark.parametrize("file", SCRIPT["PAGES"], ids=lambda file: file.name)
def test_the_pages_are_what_was_measured(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(SCRIPT["START"]) == 1 and text.count(SCRIPT["END"]) == 1
    assert text == SCRIPT["page"](file, text), "run `python scripts/write_bench_table.py`"


def test_the_profile_adds_up() -> None:
    record = json.loads((ROOT / "results" / "bench" / "profile.json").read_text(encoding="utf-8"))
    assert sum(record["shares"].values()) == pytest.approx(1.0) and min(record["shares"].values()) >= 0.0


@pytest.mark.parametrize("suite", SCRIPT["SUITES"])
def test_the_record_follows_from_its_rounds(suite: str) -> None:
    record = json.loads((ROOT / "results" / "bench" / f"{suite}.json").read_text(encoding="utf-8"))
    check_record(record, suite)
    assert "--quick" not in record["command"]


def test_everything_was_compared() -> None:
    records = SCRIPT["load"]()
    assert not [row for record in records.values() for row in record["rows"] if "skipped" in row]
    assert set(SCRIPT["LOSSES"]) | {"floor"} == {row["variant"] for row in records["kernels"]["rows"]}
