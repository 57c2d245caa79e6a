"""The tables of docs/gradient-mass.md, from results/gradient-mass/ (`python -m tools.measure.gradient_mass`)."""

from __future__ import annotations

from typing import Any

from drpo.files import read_json
from drpo.lab.tables import table as markdown_table
from tools.measure.gradient_mass import ENDS, FOLDER

#: The records in the page's order, with their headings.
RECORDS = {
    "smollm2-sums": "SmolLM2-135M-Instruct on sums",
    "dense-word-problems": "The base of 4,096 tokens on word problems, at the same learning rate and updates",
    "settle2-matched-pilot": "The same base over the area of settle2-area, under the surrogate",
}
#: What a row shows of an objective: it masks (w = 0), or reverses (w < 0) and damps.
SHOWN = {
    "PPO": ("removed",),
    "GRPO": ("removed",),
    "DPPO": ("removed",),
    "IPO": ("removed",),
    "SPO": ("reversed", "changed"),
    "DRPO": ("reversed", "changed"),
    "k1": ("changed",),
}
#: Bins of rare tokens, μ up to 0.01.
RARE = sum(end <= 0.01 for end in ENDS)
ROWS = {"tokens": "tokens with Â ≠ 0", "mass": "gradient mass \\|Â r\\|", "logit": "\\|Â r\\| (1 − π)"}


def block() -> str:
    """A table a record, then what of it lies at rare tokens, then the thresholds of equal strength."""
    records = {name: read_json(FOLDER / f"{name}.json") for name in RECORDS}
    parts = [text for name, record in records.items() for text in (f"### {RECORDS[name]}", _said(record), bins(record))]
    rare = ["### Of what is removed, the share at rare tokens, μ ≤ 0.01", rare_table(records)]
    return "\n\n".join([*parts, *rare, "### Thresholds of equal strength", matched_table(records)])


def _said(record: dict[str, Any]) -> str:
    """What the tokens are of."""
    runs = record["runs"]
    rates, updates = (sorted({run[key] for run in runs}) for key in ("learning_rate", "updates_per_step"))
    objective, steps = runs[0]["objective"]["name"], runs[0]["logged_steps"]
    several = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    return (
        f"{several} under `{objective}`, {steps} steps each, learning rate {_listed(rates)}, {_listed(updates)} "
        f"updates a step: {record['tokens']:,} tokens, {record['with_advantage']:,} of them with "
        f"Â ≠ 0. `{record['command']}`"
    )


def _listed(values: list[float]) -> str:
    return " to ".join(f"{value:g}" for value in (values if len(values) == 1 else [values[0], values[-1]]))


def bins(record: dict[str, Any]) -> str:
    """A row for the tokens, for each mass, and for what each objective does to |Â r|; columns are bins of μ."""
    lows = ["0", *(f"{end:g}" for end in ENDS[:-1])]
    heads = ["% of all", *(f"μ {low}–{end:g}" for low, end in zip(lows, ENDS, strict=True)), "sum"]
    rows = [[ROWS[name], *_percent(values)] for name, values in record["bins"].items()]
    for label, kinds in SHOWN.items():
        rows += [[f"{label}: {kind}", *_percent(record["objectives"][label][kind])] for kind in kinds]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows))


def _percent(values: list[float]) -> list[str]:
    return [f"{100 * value:.3g}" if value >= 5e-6 else "0" for value in [*values, sum(values)]]


def rare_share(record: dict[str, Any], label: str, ending: str = "") -> float | None:
    """Of what an objective removes or reverses, the share at μ ≤ 0.01; None where it does neither."""
    figures = record["objectives"][label]
    values = [a + b for a, b in zip(figures[f"removed{ending}"], figures[f"reversed{ending}"], strict=True)]
    return sum(values[:RARE]) / sum(values) if sum(values) else None


def rare_table(records: dict[str, dict[str, Any]]) -> str:
    """A row an objective; for each record by |Â r| and by |Â r| (1 − π)."""
    kinds = {"": "\\|Â r\\|", "_logit": "\\|Â r\\| (1 − π)"}
    heads = ["removed or reversed", *(f"{name}, by {kind}" for name in records for kind in kinds.values())]
    labels = [label for label in SHOWN if label != "k1"]
    rows = [
        [label, *(_share(rare_share(record, label, ending)) for record in records.values() for ending in kinds)]
        for label in labels
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def matched_table(records: dict[str, dict[str, Any]]) -> str:
    """Each objective's thresholds at which it changes as much of the gradient mass as DRPO at 0.15."""
    heads = ["", *(f"{name}: {record['matched']['share']:.2%}" for name, record in records.items())]
    labels = [label for label in SHOWN if label != "DRPO"]
    rows = [[label, *(_thresholds(record, label) for record in records.values())] for label in labels]
    return markdown_table(heads, rows)


def _thresholds(record: dict[str, Any], label: str) -> str:
    settings = record["matched"]["objectives"][label]["settings"]
    return ", ".join(f"{key}={value:g}" for key, value in settings.items() if isinstance(value, float))
