"""The records behind docs/mismatch.md: every source was measured, and the measuring counts as the page says."""

from __future__ import annotations

import math

import pytest
import torch

from drpo.files import read_json
from tools.measure.mismatch import FOLDER, SOURCES, WITHOUT, compare


@pytest.mark.parametrize("group", SOURCES)
def test_every_source_was_measured_as_the_script_says(group: str) -> None:
    rows = read_json(FOLDER / f"{group}.json")["sources"]
    assert list(rows) == list(SOURCES[group])
    for label, source in SOURCES[group].items():
        assert rows[label]["command"] == "drpo train " + " ".join(source.overrides())
        assert sum(part["tokens"] for part in rows[label]["bins"]) == rows[label]["tokens"]


def test_tokens_are_compared_by_bin_of_mu() -> None:
    mu, pi = torch.tensor([0.05, 0.05, 1.0]), torch.tensor([0.04, 0.08, 0.5])
    found = compare(pi.log(), mu.log())
    assert found["tokens"] == 3 and found["shift"] == pytest.approx((0.01 + 0.03 + 0.5) / 3, rel=1e-5)
    assert found["mismatch"] == pytest.approx((math.log(1.25) + math.log(1.6) + math.log(2)) / 3, rel=1e-5)
    assert found["mismatch_max"] == pytest.approx(math.log(2), rel=1e-5)
    assert found["ratio"] == pytest.approx((0.8 + 1.6 + 0.5) / 3, rel=1e-5)
    assert found["signed_shift"] == pytest.approx((-0.01 + 0.03 - 0.5) / 3, rel=1e-5)
    counts = {(part["above"], part["up_to"]): part["tokens"] for part in found["bins"]}
    assert counts[0.01, 0.1] == 2 and counts[0.99, 1.0] == 1 and sum(counts.values()) == 3
    part = next(part for part in found["bins"] if part["above"] == 0.01)
    assert part["shift"] == pytest.approx(0.02, rel=1e-5)


def test_a_replayed_support_leaves_rounding_alone() -> None:
    rows = read_json(FOLDER / "truncation.json")["sources"]
    replayed = [row["mismatch"] for label, row in rows.items() if not label.endswith(WITHOUT)]
    biased = [row["mismatch"] for label, row in rows.items() if label.endswith(WITHOUT)]
    assert max(replayed) < 2e-6 and min(biased) > 0.02
