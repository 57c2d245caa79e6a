"""Write the table and the figure of docs/mismatch.md from results/mismatch/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drpo.report.figures.mismatch import bin_label, mismatch_panels

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PAGE = ROOT / "results" / "mismatch", ROOT / "docs" / "mismatch.md"
START, END = "<!-- mismatch: made by make mismatch -->", "<!-- end of mismatch -->"
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
    return {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in PANELS}


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


def page(text: str) -> str:
    """``text`` with what was measured between its marks."""
    records = load()
    dates = sorted({record["machine"]["date"] for record in records.values()})
    before, rest = text.split(START)
    _, after = rest.split(END)
    block = [
        START,
        "",
        *table(records),
        "",
        f"Measured {', '.join(dates)} on a CPU, torch {records['precision']['machine']['torch']}.",
        "",
        END,
    ]
    return before + "\n".join(block) + after


def main() -> None:
    """Write page and figure."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    records = load()
    figure = mismatch_panels({title: records[name]["sources"] for name, title in PANELS.items()})
    figure.savefig(ROOT / "docs" / "figures" / "mismatch.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
