"""The table and the figure of docs/mismatch.md, from results/mismatch/ (`make mismatch`)."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from drpo.files import read_json
from drpo.report.figures.mismatch import bin_label, mismatch_panels
from tools.measure.mismatch import FOLDER

#: Group → the panel's title.
PANELS = {
    "precision": "Precision, dense model",
    "precision_moe": "Precision, mixture of experts",
    "vllm": "Another engine (vLLM on a CPU), dense model",
    "staleness": "Updates since sampling, dense model",
    "lag": "Rollouts from older weights, dense model",
}


def load() -> dict[str, dict[str, Any]]:
    """Group → its record."""
    return {name: read_json(FOLDER / f"{name}.json") for name in PANELS}


def number(value: float | None) -> str:
    """Two digits, or a dash."""
    return "–" if value is None else f"{value:.1e}"


def table(records: dict[str, dict[str, Any]]) -> list[str]:
    """A line a source, a column a bin of μ."""
    bins = next(iter(records["precision"]["sources"].values()))["bins"]
    heads = ["source", "mean", "p99", *(f"μ {bin_label(part)}" for part in bins), "mean nats", "p99 nats"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name, title in PANELS.items():
        lines.append(f"| **{title}** |" + " |" * (len(heads) - 1))
        for label, row in records[name]["sources"].items():
            cells = [
                row["shift"],
                row["shift_p99"],
                *(part["shift"] for part in row["bins"]),
                row["mismatch"],
                row["mismatch_p99"],
            ]
            lines.append(f"| {label} | " + " | ".join(number(cell) for cell in cells) + " |")
    return lines


def block() -> str:
    """The table and when it was measured."""
    records = load()
    dates = sorted({record["machine"]["date"] for record in records.values()})
    measured = f"Measured {', '.join(dates)} on a CPU, torch {records['precision']['machine']['torch']}."
    return "\n".join([*table(records), "", measured])


def figure() -> Figure:
    """A panel a group of sources; both kinds of old rollouts are one."""
    panels = {PANELS[name]: record["sources"] for name, record in load().items()}
    older = panels.pop(PANELS["staleness"]) | panels.pop(PANELS["lag"])
    return mismatch_panels({**panels, "Older rollouts, dense model": older})
