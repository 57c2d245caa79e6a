"""What results/bench says follows from its rounds, and everything was compared."""

from __future__ import annotations

import json

import pytest

from drpo.bench.losses import RESTRICTED
from support.bench_records import check_record
from tools.docs.bench_tables import FOLDER, LOSSES, SUITES, load


def test_the_profile_adds_up() -> None:
    record = json.loads((FOLDER / "profile.json").read_text(encoding="utf-8"))
    assert sum(record["shares"].values()) == pytest.approx(1.0) and min(record["shares"].values()) >= 0.0


@pytest.mark.parametrize("suite", [*SUITES, "support"])
def test_the_record_follows_from_its_rounds(suite: str) -> None:
    record = json.loads((FOLDER / f"{suite}.json").read_text(encoding="utf-8"))
    check_record(record, suite)
    assert "--quick" not in record["command"]


def test_everything_was_compared() -> None:
    records = load()
    assert not [row for record in records.values() for row in record["rows"] if "skipped" in row]
    assert set(LOSSES) | {"floor"} == {row["variant"] for row in records["kernels"]["rows"]}


def test_a_support_keeps_within_its_bounds() -> None:
    record = json.loads((FOLDER / "support.json").read_text(encoding="utf-8"))
    steps = [row for row in record["rows"] if "fused_loss" in row["ratios"]]
    assert [row["variant"] for row in steps[1:]] == list(RESTRICTED)
    for row in steps[1:]:
        assert row["ratios"]["fused_loss"] <= 1.15
        assert row["figures"]["peak_bytes"] <= 1.2 * steps[0]["figures"]["peak_bytes"]
