"""docs/gradient-mass.md: its tables from records, and what the prose says of them."""

from __future__ import annotations

import pytest

from drpo.files import read_json
from tools import ROOT
from tools.docs.gradient_mass_table import RECORDS, bins, rare_share
from tools.measure.gradient_mass import BOUNDS, ENDS, FOLDER


@pytest.mark.parametrize("name", RECORDS)
def test_bins_of_every_record_add_up(name: str) -> None:
    record = read_json(FOLDER / f"{name}.json")
    assert record["ends"] == list(ENDS)
    assert all(sum(shares) == pytest.approx(1) for shares in record["bins"].values())
    assert {label: figures["settings"] for label, figures in record["objectives"].items()} == BOUNDS
    for label in ("PPO", "GRPO", "DPPO", "IPO"):  # a mask changes what it removes, and nothing else
        figures = record["objectives"][label]
        assert figures["removed"] == pytest.approx(figures["changed"]) and sum(figures["reversed"]) == 0
    for one, other in (("SPO", "PPO"), ("DRPO", "DPPO")):  # the same boundary, behind which one reverses
        assert record["objectives"][one]["reversed"] == pytest.approx(record["objectives"][other]["removed"], abs=1e-4)
    lengths = {line.count(" | ") for line in bins(record).splitlines()}
    assert lengths == {len(ENDS) + 1}


def test_ratio_bounds_act_on_rare_tokens_and_probability_bounds_do_not() -> None:
    """On the pretrained model; the shares that the page's first paragraph is about."""
    record = read_json(FOLDER / "smollm2-sums.json")
    for label in ("PPO", "GRPO", "SPO"):
        assert (rare_share(record, label) or 0) > 0.2 and (rare_share(record, label, "_logit") or 0) > 0.25
    for label in ("DPPO", "IPO", "DRPO"):
        assert rare_share(record, label) == 0


def test_nothing_of_this_machine_is_in_a_record() -> None:
    for name in RECORDS:
        assert "/work" not in (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert "/work" not in (ROOT / "docs" / "gradient-mass.md").read_text(encoding="utf-8")
