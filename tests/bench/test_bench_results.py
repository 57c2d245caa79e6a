"""What results/bench says follows from its rounds, and everything was compared."""

from __future__ import annotations

import json

import pytest

from support.bench_records import check_record
from tools.docs.bench_tables import FOLDER, LOSSES, SUITES, load


def test_the_profile_adds_up() -> None:
    record = json.loads((FOLDER / "profile.json").read_text(encoding="utf-8"))
    assert sum(record["shares"].values()) == pytest.approx(1.0) and min(record["shares"].values()) >= 0.0


@pytest.mark.parametrize("suite", SUITES)
def test_the_record_follows_from_its_rounds(suite: str) -> None:
    record = json.loads((FOLDER / f"{suite}.json").read_text(encoding="utf-8"))
    check_record(record, suite)
    assert "--quick" not in record["command"]


def test_everything_was_compared() -> None:
    records = load()
    assert not [row for record in records.values() for row in record["rows"] if "skipped" in row]
    assert set(LOSSES) | {"floor"} == {row["variant"] for row in records["kernels"]["rows"]}
