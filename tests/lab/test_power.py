"""The procedure of the second round, simulated: a small run of it here, and the record that is committed."""

from __future__ import annotations

from typing import Any

import pytest

from drpo.files import read_json
from tools.measure.power import FILE, SCENARIOS, summary

#: The studies hold δ = 12.5 on purpose.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning")]


def record(name: str) -> dict[str, Any]:
    (found,) = [one for one in read_json(FILE)["scenarios"] if one["scenario"] == name]
    return found


@pytest.mark.parametrize("name", [one.name for one in SCENARIOS])
def test_any_verdict_is_wrong_in_five_percent_of_studies_at_most(name: str) -> None:
    found = record(name)
    assert found["studies"] >= 2_000 and found["wrong"] <= 0.06 and found["coverage"] >= 0.94


@pytest.mark.parametrize(
    ("true", "answer", "share"), [("0", "equivalent", 0.95), ("0.015", "better", 0.92), ("0.02", "better", 0.99)]
)
def test_the_power_is_the_planned_one(true: str, answer: str, share: float) -> None:
    """Of one comparison alone, as it was planned: within three points."""
    found = record(f"DRPO − DPPO is {true}, alone")
    assert found["answers"][answer] == pytest.approx(share, abs=0.03)
    assert 28 - 3 <= found["seeds"] <= 34 + 3


def test_the_record_is_what_the_procedure_does_now() -> None:
    """300 studies of two scenarios: within what chance allows."""
    for place in (0, 3):
        found, kept = summary(SCENARIOS[place], 300, seed=100), record(SCENARIOS[place].name)
        for answer, share in kept["answers"].items():
            spread = 4 * (max(share * (1 - share), 0.003) / 300) ** 0.5
            assert found["answers"].get(answer, 0.0) == pytest.approx(share, abs=spread)
        assert found["wrong"] <= kept["wrong"] + 4 * (0.05 / 300) ** 0.5
        assert found["seeds"] == pytest.approx(kept["seeds"], abs=2.0)
