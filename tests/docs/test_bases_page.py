"""The table of docs/bases.md holds the figures of the bases' own records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drpo.model.source import EMBEDDED, embedded_directory

PAGE = (Path(__file__).parents[2] / "docs" / "bases.md").read_text(encoding="utf-8")


def made(name: str) -> dict[str, Any]:
    return json.loads((embedded_directory(name) / "warm_start.json").read_text())


@pytest.mark.parametrize("name", [name for name in EMBEDDED if name != "arithmetic"])
def test_the_row_of_a_base_is_its_record(name: str) -> None:
    record = made(name)
    steps = record["task_parameters"]
    figures = [
        f"{record['parameters'] / 1e6:.2f} M",
        f"{steps['min_steps']}–{steps['max_steps']}" if len({*steps.values()}) > 1 else str(steps["min_steps"]),
        f"{100 * record['heldout']['accuracy']:.0f} %",
        f"{100 * record['cold_accuracy']:.0f} %",
        f"{100 * record['tail_share']:.1f} %",
        f"{record['heldout']['response_length']:.0f}",
    ]
    row, _ = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))  # then what RL made of it
    assert [cell.strip() for cell in row.split("|")[3:-1]] == figures


def test_the_loads_of_experts_are_those_of_the_records() -> None:
    for name in ("moe", "hybrid"):
        shares = [share for layer in made(name)["expert_load"] for share in layer]
        assert f"`{name}` {100 * min(shares):.0f} to {100 * max(shares):.0f} %" in PAGE
