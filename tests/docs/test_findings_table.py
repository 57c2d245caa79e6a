"""What docs/inspect.md says of false alarms and detections is what was counted, and it holds."""

from __future__ import annotations

from collections import defaultdict

from tools.docs.findings_table import TRUE_OF_CLEAN_LOGS, table
from tools.measure.findings import FIRST_SEED, faults, read

#: How often a planted fault must be found at one size, at least.
FOUND = 0.95


def test_fewer_than_one_clean_log_in_a_hundred_has_a_fault() -> None:
    rows = [row for row in read() if not row["planted"]]
    assert len(rows) >= 200 and {row["base"] for row in rows} == {"run", "simulated"}
    assert sum(bool(row["faults"]) for row in rows) < 0.01 * len(rows)
    assert sum(bool({*row["warnings"].split()} - TRUE_OF_CLEAN_LOGS) for row in rows) < 0.05 * len(rows)


def test_every_planted_fault_is_found_at_a_size_that_the_page_names() -> None:
    found = defaultdict(list)
    for row in read():
        if row["planted"]:
            names = (row["faults"] + " " + row["warnings"]).split()
            found[row["planted"], row["size"]].append(row["planted"] in names)
    assert set(found) == {(fault.name, fault.size) for fault in faults()}
    assert min(map(len, found.values())) >= 20
    best = defaultdict(float)
    for (name, _), hits in found.items():
        best[name] = max(best[name], sum(hits) / len(hits))
    missed = {name: share for name, share in best.items() if share < FOUND}
    assert not missed


def test_counted_seeds_are_not_those_of_the_tests() -> None:
    assert FIRST_SEED >= 2000 and min(int(row["seed"]) for row in read()) == FIRST_SEED


def test_the_table_has_a_line_a_fault_and_size() -> None:
    lines = table().splitlines()
    for fault in faults():
        assert any(line.startswith(f"| `{fault.name}` | {fault.size} |") for line in lines)
