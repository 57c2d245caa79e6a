"""The table of docs/inspect.md, from results/findings.csv (`python -m tools.measure.findings`)."""

from __future__ import annotations

from collections import Counter

from tools.measure.findings import read

#: Warnings about δ and about what a log's rewards were: not false in a clean log.
TRUE_OF_CLEAN_LOGS = {"vacuous", "inert", "no_signal"}


def table() -> str:
    """False alarms over clean logs, then a line a fault and size."""
    rows = read()
    return "\n".join([*_clean([row for row in rows if not row["planted"]]), "", *_planted(rows)])


def _clean(rows: list[dict[str, str]]) -> list[str]:
    lines = [
        "| clean logs | number | tokens | with a fault | with a false warning |",
        "| --- | --- | --- | --- | --- |",
    ]
    labels = {"run": "short runs of `drpo train`", "simulated": "simulated policy", "": "all"}
    for base, label in labels.items():
        part = [row for row in rows if base in ("", row["base"])]
        tokens = [int(row["tokens"]) for row in part]
        false = Counter(name for row in part for name in {*row["warnings"].split()} - TRUE_OF_CLEAN_LOGS)
        warned = sum(bool({*row["warnings"].split()} - TRUE_OF_CLEAN_LOGS) for row in part)
        names = f" ({', '.join(f'{name} {count}' for name, count in sorted(false.items()))})" if false else ""
        faulty = sum(bool(row["faults"]) for row in part)
        lines.append(f"| {label} | {len(part)} | {min(tokens):,} to {max(tokens):,} | {faulty} | {warned}{names} |")
    return lines


def _planted(rows: list[dict[str, str]]) -> list[str]:
    lines = ["| finding | planted | found alone | found | logs |", "| --- | --- | --- | --- | --- |"]
    cells: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["planted"]:
            cells.setdefault((row["planted"], row["size"]), []).append(row)
    for (name, size), part in sorted(cells.items()):
        found = [row for row in part if name in (row["faults"] + " " + row["warnings"]).split()]
        alone = [row for row in found if set(row["faults"].split()) <= {name}]
        lines.append(f"| `{name}` | {size} | {len(alone)} | {len(found)} | {len(part)} |")
    return lines
