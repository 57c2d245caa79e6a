"""docs/glossary.md names terms once, functions that exist and metrics that are written."""

from __future__ import annotations

import re
from pathlib import Path

import torch

import drpo

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in (DOCS / "glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| term")
]


def written() -> set[str]:
    """The metrics of a diagnosis, and those that the page of trackers lists."""
    objective = drpo.make_objective("drpo", delta=0.15)
    batch = drpo.TokenBatch(torch.full((2,), -1.0), torch.full((2,), -1.1), torch.tensor([1.0, -1.0]))
    tracked = (DOCS / "tracking.md").read_text(encoding="utf-8")
    names = {
        name for path in re.findall(r"`(?:train|evaluation)/([\w/]+)`", tracked) for name in (path, path.split("/")[0])
    }
    return {*drpo.diagnose(batch, 0.15, objective), *names, "left_out_share"}


def test_every_row_is_whole_and_every_term_has_one() -> None:
    assert len(ROWS) > 25 and {len(row) for row in ROWS} == {5}
    assert all(term and meaning.endswith(".") for term, _, meaning, _, _ in ROWS)
    terms = [row[0] for row in ROWS]
    assert len(set(terms)) == len(terms)


def test_every_metric_is_one_that_is_written() -> None:
    named = {name for row in ROWS for name in re.findall(r"`([\w/]+)`", row[4])}
    assert len(named) > 15 and named <= written()


def test_every_function_exists() -> None:
    named = {name for row in ROWS for name in re.findall(r"`drpo\.(\w+)`", row[3])}
    assert {"diagnose", "aggregate", "gradient_weight"} & named
    assert [name for name in named if not hasattr(drpo, name)] == []
