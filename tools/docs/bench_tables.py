"""The tables of docs/benchmarks.md and docs/performance.md, from results/bench/ (`make bench`)."""

from __future__ import annotations

from typing import Any

from drpo.files import read_json
from drpo.report.figures.cost_curves import count
from tools import RESULTS

FOLDER = RESULTS / "bench"
SUITES = ("kernels", "sampler", "step", "inspect", "curves")
#: Variant → its column.
LOSSES = {
    "fused_loss": "`fused_loss`",
    "fused_loss two-pass": "`fused_loss`, two-pass objective",
    "token_logprobs chunked": "`token_logprobs`, then autograd",
    "naive": "naive log-softmax",
    "TRL fused head": "TRL's fused head",
    "Liger GRPO": "Liger's fused GRPO",
}
#: Suite → what is done, our variant, and the one that the ratio is to.
PAIRS = {
    "sampler": ("sampling ", "InProcessSampler", "generate"),
    "step": ("", "drpo Trainer", "TRL GRPOTrainer"),
}


def load() -> dict[str, dict[str, Any]]:
    """Suite → its record."""
    return {name: read_json(FOLDER / f"{name}.json") for name in SUITES}


def machines(records: dict[str, dict[str, Any]]) -> str:
    """When and on what; more than one line's worth only if the files come from several runs."""
    found = []
    for record in records.values():
        machine, versions = record["machine"], record["machine"]["packages"]
        names = {"torch": "torch", "transformers": "transformers", "trl": "TRL", "liger_kernel": "Liger-Kernel"}
        parts = [machine["date"], machine["cpu"], count(machine["cores"], "core"), count(machine["threads"], "thread")]
        parts += [f"{name} {versions[package]}" for package, name in names.items() if package in versions]
        if machine.get("busy"):
            parts.append(f"other programs used {machine['others']:.1f} CPUs meanwhile")
        found.append(", ".join(parts))
    return "; and ".join(dict.fromkeys(found))


def cell(row: dict[str, Any] | None) -> str:
    """Ratio to the floor, and the peak."""
    if row is None or "skipped" in row:
        return "–"
    peak = row["figures"].get("peak_bytes")
    return f"{row['ratios']['floor']:.2f} ×" + ("" if peak is None else f", {peak / 1e6:,.0f} MB")


def kernels(record: dict[str, Any]) -> list[str]:
    """A line a size, a column a variant."""
    lines = ["| N, H, V | " + " | ".join(LOSSES.values()) + " |", "| --- |" + " --- |" * len(LOSSES)]
    for case in dict.fromkeys(row["case"] for row in record["rows"]):
        rows = {row["variant"]: row for row in record["rows"] if row["case"] == case}
        sizes = ", ".join(f"{value:,}" for value in rows["floor"]["sizes"].values())
        lines.append(f"| {sizes} | " + " | ".join(cell(rows.get(name)) for name in LOSSES) + " |")
    return lines


def pairs(suite: str, record: dict[str, Any]) -> list[str]:
    """A line a case: ours, theirs, ratio."""
    what, ours, theirs = PAIRS[suite]
    lines = []
    for case in dict.fromkeys(row["case"] for row in record["rows"]):
        rows = {row["variant"]: row for row in record["rows"] if row["case"] == case}
        lines.append(
            f"| {what}{case} | {ours}: {cost(rows[ours])} | {theirs}: {cost(rows[theirs])} | "
            f"{rows[ours]['ratios'][theirs]:.2f} | {to_floor(rows[ours])} |"
        )
    return lines


def to_floor(row: dict[str, Any]) -> str:
    """The ratio to the floor, where it was measured."""
    return f"{row['ratios']['floor']:.2f}" if "floor" in row["ratios"] else "–"


def model_step() -> str:
    """A training step of a model of real size: a line a library. Says so where there is no record."""
    file = FOLDER / "model-step.json"
    if not file.exists():
        return "Not measured with this version: `make bench` does so."
    record = read_json(file)
    measured = [row for row in record["rows"] if "skipped" not in row and row["variant"] != "floor"]
    lines = [
        f"{machines({'model-step': record})}; {record['rows'][0]['case']}.",
        "",
        "| library | seconds | sampling | forward | backward | optimizer | peak | to TRL | to the floor |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in measured:
        figures = row["figures"]
        parts = [f"{figures[f'{name}_seconds']:.1f}" for name in ("sampling", "forward", "backward", "optimizer")]
        lines.append(
            f"| {row['variant']} | {row['seconds']:.1f} ({row['min']:.1f} to {row['max']:.1f}) | "
            f"{' | '.join(parts)} | {figures['peak_bytes'] / 1e9:.1f} GB | "
            f"{row['ratios'].get('TRL GRPOTrainer', float('nan')):.2f} | {to_floor(row)} |"
        )
    skipped = [f"{row['variant']}: {row['skipped']}." for row in record["rows"] if "skipped" in row]
    return "\n".join(lines + ["", *skipped] * bool(skipped))


def cost(row: dict[str, Any]) -> str:
    """Median, with its spread."""
    return f"{row['seconds']:.2f} s ({row['min']:.2f} to {row['max']:.2f}), {row['tokens_per_second']:,.0f} tokens/s"


def inspection(record: dict[str, Any]) -> list[str]:
    """A line a kind of log."""
    return [
        f"| {row['case']}, {row['variant']} | {cost(row)}, peak {row['figures']['peak_bytes'] / 1e9:.2f} GB "
        "| – | – | – |"
        for row in record["rows"]
        if "skipped" not in row
    ]


def tables() -> str:
    """The comparisons."""
    records = load()
    lines = [
        f"{machines(records)}; medians over rounds in which the variants take turns, ratios of the same round.",
        "",
        "From N hidden states to the loss and both gradients (float32), in units of the three matrix products that "
        "nothing can avoid, and the highest memory above inputs and gradients:",
        "",
        *kernels(records["kernels"]),
        "",
        "| what | drpo | instead | time, drpo to the other (of sampling: per token) | time, drpo to the floor |",
        "| --- | --- | --- | --- | --- |",
        *pairs("sampler", records["sampler"]),
        *pairs("step", records["step"]),
        *inspection(records["inspect"]),
        "",
        "![Cost against tokens, vocabulary, support, group, length and model size](../results/bench/curves.png)",
    ]
    return "\n".join(lines)


def support() -> str:
    """What renormalizing over a support costs, and ids against bits."""
    record = read_json(FOLDER / "support.json")
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in record["rows"]:
        cases.setdefault(row["case"], []).append(row)
    (title, steps), (drawing, draws), *forms = cases.items()
    without = steps[0]
    lines = [
        f"{machines({'support': record})}; {title}; medians over {len(without['rounds'])} rounds in which the variants "
        "take turns, ratios of the same round.",
        "",
        "| `fused_loss`, forward and backward | seconds | time, to without | peak memory | peak, to without |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in steps:
        name = "without a support" if row is without else f"supports: {row['variant']}"
        peak = row["figures"]["peak_bytes"]
        lines.append(
            f"| {name} | {row['seconds']:.1f} ({row['min']:.1f} to {row['max']:.1f}) | "
            f"{row['ratios'][without['variant']]:.2f} | {peak / 1e6:,.0f} MB | "
            f"{peak / without['figures']['peak_bytes']:.2f} |"
        )
    lines += [
        "",
        f"| {drawing} | time | to nothing truncated |",
        "| --- | --- | --- |",
        *(
            f"| {row['variant']} | {1e3 * row['seconds']:,.0f} ms | {row['ratios']['nothing truncated']:.2f} |"
            for row in draws
        ),
        "",
        "| −inf outside the supports, 256 rows | ids: bytes a token | bits | ids: time | bits | bits to ids |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for _, (ids, bits) in forms:
        held = " | ".join(f"{row['figures']['bytes_per_token']:,.0f}" for row in (ids, bits))
        spent = " | ".join(f"{1e3 * row['seconds']:,.0f} ms" for row in (ids, bits))
        lines.append(f"| nuclei of {ids['sizes']['nucleus']:,} | {held} | {spent} | {bits['ratios']['ids']:.1f} |")
    return "\n".join(lines)


def profile() -> str:
    """Where a training step's time goes."""
    record = read_json(FOLDER / "profile.json")
    machine = record["machine"]
    lines = [
        f"{machine['date']}, {machine['cpu']}, {count(machine['threads'], 'thread')}, torch "
        f"{machine['packages']['torch']}: {record['seconds']:.3f} s a step, median of {record['steps']}.",
        "",
        "| part of a step | share of its time |",
        "| --- | --- |",
        *(f"| {label} | {share:.1%} |" for label, share in record["shares"].items()),
    ]
    return "\n".join(lines)
