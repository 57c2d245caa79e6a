"""The table of docs/settings.md, from results/settings.json (`make settings`)."""

from __future__ import annotations

from typing import Any

from drpo.files import read_json
from tools.measure.settings import FILE, NAMES


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """A line a setting."""
    heads = [
        "setting",
        "accuracy before",
        f"after {found[NAMES[0]]['steps']} steps",
        "mean \\|π − μ\\|",
        "p99 \\|π − μ\\|",
        "mean \\|log π − log μ\\|, nats",
        "tokens with μ ≤ 0.01",
        "tokens a response",
        "tokens/s",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name in NAMES:
        row = found[name]
        cells = [
            f"[{name}](../src/drpo/recipes/settings/{name}.yaml)",
            f"{row['before']['accuracy']:.3f}",
            f"{row['after']['accuracy']:.3f}",
            f"{row['shift']:.1e}",
            f"{row['shift_p99']:.1e}",
            f"{row['mismatch']:.1e}",
            f"{row['rare_share']:.1%}",
            f"{row['response_length']:.0f}",
            f"{row['tokens_per_second']:,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def block() -> str:
    """The table and how it was measured."""
    found = read_json(FILE)
    machines = dict.fromkeys(
        f"{row['machine']['date']}, torch {row['machine']['torch']}, threads a run: {row['machine']['threads']}"
        for row in found.values()
    )
    samples = found[NAMES[0]]["after"]["samples"]
    measured = (
        f"Seed 0; accuracy over {samples} sampled responses to held-out problems; "
        f"absolute probability shifts at the first update. Measured {'; '.join(machines)}."
    )
    return "\n".join([*table(found), "", measured])
