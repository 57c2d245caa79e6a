"""What a record of `drpo bench` must be: its schema, and figures that follow from its own rounds."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

HEAD = {"case", "variant", "sizes", "curve"}
MEASURED = HEAD | {"seconds", "min", "max", "rounds", "tokens", "tokens_per_second", "ratios", "per_token", "figures"}


def check_record(record: dict[str, Any], suite: str) -> None:
    """Every figure is worked out again from the rounds."""
    assert set(record) == {"schema", "suite", "command", "machine", "rows"}
    assert record["schema"] == 1 and record["suite"] == suite and record["command"]
    machine = record["machine"]
    assert {"date", "cpu", "cores", "threads", "load", "device", "python", "packages"} <= set(machine)
    assert machine["cores"] >= 1 and machine["threads"] >= 1 and machine["cpu"] and machine["packages"]["torch"]
    assert record["rows"]
    for row in record["rows"]:
        if "skipped" in row:
            assert set(row) == HEAD | {"skipped"} and row["skipped"]
            continue
        check_row(row, record["rows"])


def check_row(row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """One measured row, among all of its record."""
    assert set(row) - {"note"} == MEASURED
    rounds = row["rounds"]
    assert rounds and min(rounds) > 0
    assert (row["seconds"], row["min"], row["max"]) == (statistics.median(rounds), min(rounds), max(rounds))
    if row["tokens"] is not None:
        speeds = [count / spent for count, spent in zip(row["tokens"], rounds, strict=True)]
        assert row["tokens_per_second"] == pytest.approx(statistics.median(speeds))
    assert row["curve"] is None or row["sizes"][row["curve"]] > 0
    for name, ratio in row["ratios"].items():
        same = [r for r in rows if (r["case"], r["curve"], r["variant"]) == (row["case"], row["curve"], name)]
        # Cases of two curves may be of one size; ratios are within the case that a row was measured in.
        expected = [statistics.median(a / b for a, b in zip(costs(row), costs(other), strict=True)) for other in same]
        assert any(ratio == pytest.approx(value) for value in expected), row


def costs(row: dict[str, Any]) -> list[float]:
    """What ratios compare."""
    if not row["per_token"]:
        return row["rounds"]
    return [spent / count for spent, count in zip(row["rounds"], row["tokens"], strict=True)]
