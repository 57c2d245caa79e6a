"""The tables of docs/truncated-sampling.md, from results/mismatch/truncation.json (`make mismatch`)."""

from __future__ import annotations

from typing import Any

from drpo.files import read_json
from drpo.report.figures.mismatch import bin_label
from tools.docs.mismatch_page import number
from tools.measure.mismatch import FOLDER, WITHOUT

#: Sources whose bins are shown.
SHOWN = ("top_p=0.9", "all three")


def block() -> str:
    """Over all tokens, then by μ."""
    record = read_json(FOLDER / "truncation.json")
    sources, machine = record["sources"], record["machine"]
    lines = [
        f"{machine['date']}, torch {machine['torch']}, `embedded:dense`, {sources[SHOWN[0]]['tokens']:,} tokens under "
        f"`{SHOWN[0]}`; nats at the weights that sampled, float32 on a CPU:",
        "",
        "| | with replay, mean | max | without, mean | max | mean of r without |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label, row in sources.items():
        if label.endswith(WITHOUT):
            continue
        # Without truncation there is nothing to replay.
        other = sources.get(label + WITHOUT, row)
        name = f"`{label}`" if "=" in label else label
        cells = [
            number(one) for one in (row["mismatch"], row["mismatch_max"], other["mismatch"], other["mismatch_max"])
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {other['ratio']:.4f} |")
    heads = [f"share | mean r, {name} | mean π − μ" for name in SHOWN]
    lines += ["", "Without replay, by μ:", "", f"| μ | {' | '.join(heads)} |", "|" + " --- |" * (1 + 3 * len(SHOWN))]
    binned = [sources[name + WITHOUT] for name in SHOWN]
    for parts in zip(*(row["bins"] for row in binned), strict=True):
        if any(part["tokens"] for part in parts):
            cells = [cell for part, row in zip(parts, binned, strict=True) for cell in _cells(part, row["tokens"])]
            lines.append(f"| {bin_label(parts[0])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(part: dict[str, Any], tokens: int) -> list[str]:
    if not part["tokens"]:
        return ["0 %", "–", "–"]
    return [f"{100 * part['tokens'] / tokens:.2f} %", f"{part['ratio']:.3f}", f"{part['signed_shift']:+.4f}"]
