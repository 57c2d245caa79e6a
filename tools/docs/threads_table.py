"""The table of docs/performance.md, from results/threads.json (`python -m tools.measure.threads`)."""

from __future__ import annotations

import statistics
from typing import Any

from drpo.files import read_json
from tools.measure.threads import BUSY, FILE, VARIANTS


def table() -> str:
    """Seconds a step: medians over rounds, the range in brackets, and the threads that were taken."""
    found = read_json(FILE)
    machine = found["machine"]
    lines = [
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, torch "
        f"{machine['packages']['torch']}; seconds a step: median over rounds (lowest to highest);",
        "results/threads.json. A dash was not run.",
        "",
        "| run | busy processes beside it | " + " | ".join(VARIANTS) + " |",
        "| --- | --- |" + " --- |" * len(VARIANTS),
    ]
    for name, part in found["runs"].items():
        for busy in BUSY:
            cells = {cell["variant"]: cell for cell in part["cells"] if cell["busy"] == busy}
            lines.append(f"| {name} | {busy} | " + " | ".join(shown(cells.get(variant)) for variant in VARIANTS) + " |")
    return "\n".join(lines)


def shown(cell: dict[str, Any] | None) -> str:
    """A cell of the table; a dash for one that was not run."""
    if cell is None:
        return "–"
    seconds, threads = cell["seconds"], sorted(set(cell["threads"]))
    taken = " or ".join(map(str, threads))
    spread = f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(seconds) > 1 else ""
    return f"{statistics.median(seconds):.2f}{spread}, {taken} thread{'s' * (threads != [1])}"
