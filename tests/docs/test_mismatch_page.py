"""docs/mismatch.md is what was measured, and the measuring counts as its page says."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
WRITE = runpy.run_path(str(ROOT / "scripts" / "write_mismatch_page.py"), run_name="script")
MEASURE = runpy.run_path(str(ROOT / "scripts" / "measure_mismatch.py"), run_name="script")


def test_the_page_is_what_was_measured() -> None:
    text = WRITE["PAGE"].read_text(encoding="utf-8")
    assert text.count(WRITE["START"]) == 1 and text.count(WRITE["END"]) == 1
    assert text == WRITE["page"](text), "run `python scripts/write_mismatch_page.py`"


@pytest.mark.parametrize("group", WRITE["PANELS"])
def test_every_source_was_measured_as_the_script_says(group: str) -> None:
    rows = WRITE["load"]()[group]["sources"]
    assert list(rows) == list(MEASURE["SOURCES"][group])
    for label, source in MEASURE["SOURCES"][group].items():
        assert rows[label]["command"] == "drpo train " + " ".join(source.overrides())
        assert sum(part["tokens"] for part in rows[label]["bins"]) == rows[label]["tokens"]


def test_tokens_are_compared_by_bin_of_mu() -> None:
    mu, pi = torch.tensor([0.05, 0.05, 1.0]), torch.tensor([0.04, 0.08, 0.5])
    found = MEASURE["compare"](pi.log(), mu.log())
    assert found["tokens"] == 3 and found["shift"] == pytest.approx((0.01 + 0.03 + 0.5) / 3, rel=1e-5)
    assert found["mismatch"] == pytest.approx((math.log(1.25) + math.log(1.6) + math.log(2)) / 3, rel=1e-5)
    counts = {(part["above"], part["up_to"]): part["tokens"] for part in found["bins"]}
    assert counts[0.01, 0.1] == 2 and counts[0.99, 1.0] == 1 and sum(counts.values()) == 3
    part = next(part for part in found["bins"] if part["above"] == 0.01)
    assert part["shift"] == pytest.approx(0.02, rel=1e-5)
