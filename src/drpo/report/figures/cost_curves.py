"""What it costs as the work grows: the picture of `drpo bench curves`. Pure data in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from drpo.report.figures.weights import INK, SOFT, ground
from drpo.report.palette import COLORS

#: Color and dashes, by what a variant is: ours, what people use, what nothing can avoid, a whole step of ours.
OURS, THEIRS = (COLORS[1].light, "solid"), (COLORS[2].light, (0, (5, 2)))
FLOOR, WHOLE = (INK, (0, (1, 1.5))), (COLORS[3].light, "solid")
STYLES = {
    "floor": FLOOR,
    "fused_loss": OURS,
    "naive": THEIRS,
    "InProcessSampler": OURS,
    "generate": THEIRS,
    "fused_loss over supports": WHOLE,
    "training step": WHOLE,
}
#: Variant → what the legend calls it.
NAMES = {
    "floor": "matrix products alone (floor)",
    "fused_loss": "drpo.fused_loss",
    "naive": "naive log-softmax",
    "InProcessSampler": "drpo sampler",
    "generate": "transformers generate",
    "fused_loss over supports": "drpo.fused_loss, support",
    "training step": "drpo, whole step",
}
#: The least ratio of an axis's ends.
FLAT = 10
#: Curve → title, what grows, cost.
PANELS: dict[str, tuple[str, str, str]] = {
    "tokens": ("Loss and gradients", "response tokens N", "seconds"),
    "vocabulary": ("Loss and gradients", "vocabulary V", "seconds"),
    "support": ("Loss and gradients", "tokens of a support", "seconds"),
    "group": ("Sampling", "responses a prompt", "µs per response token"),
    "length": ("Sampling and training", "tokens of a response", "µs per response token"),
    "parameters": ("A step", "parameters of the model", "seconds"),
}


def cost_curves(record: Mapping[str, Any]) -> Figure:
    """A panel for every curve of the record, both axes logarithmic; a point is a median, a bar from least to most."""
    rows = [row for row in record["rows"] if row["curve"] and "skipped" not in row]
    figure = Figure(figsize=(10.4, 11.2), layout="constrained", facecolor="white")
    axes = figure.subplots(3, 2)
    for panel, (curve, (title, grows, cost)) in zip(axes.flat, PANELS.items(), strict=True):
        own = [row for row in rows if row["curve"] == curve]
        panel.set_title(f"{title}{_fixed(own, curve)}", fontsize=11, color=INK, loc="left")
        panel.set_xlabel(grows, color=INK)
        panel.set_ylabel(cost, color=INK)
        for variant in dict.fromkeys(row["variant"] for row in own):
            points = [row for row in own if row["variant"] == variant]
            _draw(panel, variant, curve, points, _per_token if "token" in cost else _seconds)
        _ground(panel, sorted({row["sizes"][curve] for row in own}))
    machine = record["machine"]
    figure.supxlabel(
        f"{machine.get('gpu') or machine['cpu']}, {count(machine['threads'], 'thread')}, torch "
        f"{machine['packages'].get('torch', '')}, {machine['date']}",
        fontsize=9,
        color=SOFT,
    )
    return figure


def count(number: int, what: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def _fixed(rows: list[dict[str, Any]], curve: str) -> str:
    """What stays the same along the curve."""
    labels = {
        "tokens": "N = {:,}",
        "hidden": "H = {:,}",
        "vocabulary": "V = {:,}",
        "prompts": "{} prompts",
        "group": "{} responses each",
        "length": "{} tokens each",
    }
    sizes = rows[0]["sizes"] if rows else {}
    parts = [labels[name].format(value) for name, value in sizes.items() if name != curve and name in labels]
    return ": " + ", ".join(parts) if parts else ""


def _seconds(row: Mapping[str, Any]) -> list[float]:
    return row["rounds"]


def _per_token(row: Mapping[str, Any]) -> list[float]:
    return [1e6 * spent / count for spent, count in zip(row["rounds"], row["tokens"], strict=True)]


def _draw(
    panel: Axes, variant: str, curve: str, rows: list[dict[str, Any]], costs: Callable[[Mapping[str, Any]], list[float]]
) -> None:
    rows = sorted(rows, key=lambda row: row["sizes"][curve])
    color, dashes = STYLES[variant]
    points = [(row["sizes"][curve], sorted(costs(row))) for row in rows]
    x = [at for at, _ in points]
    middle = [(values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2 for _, values in points]
    panel.plot(x, middle, color=color, linestyle=dashes, linewidth=2, marker="o", markersize=4, label=NAMES[variant])
    panel.vlines(
        x, [values[0] for _, values in points], [values[-1] for _, values in points], color=color, linewidth=1.2
    )


def _ground(panel: Axes, ticks: list[int]) -> None:
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(ticks, [f"{tick / 1e6:,.0f} M" if tick >= 5e5 else f"{tick:,}" for tick in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    low, high = panel.get_ylim()
    if high / low < FLAT:  # or a curve that is flat would show nothing but the noise of its points
        middle = (low * high) ** 0.5
        low, high = panel.set_ylim(middle / FLAT**0.5, middle * FLAT**0.5)
    # Round numbers only, but several of them on an axis of less than a decade.
    shown = "125" if high / low > 8 else "123456789"
    label = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in shown else "")
    panel.yaxis.set_major_formatter(label)
    panel.yaxis.set_minor_formatter(label)
    ground(panel)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, labelcolor=INK, fontsize=9, handlelength=2.8)
