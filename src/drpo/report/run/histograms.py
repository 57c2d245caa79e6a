"""Histograms of a run's tokens, early against late, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drpo.report.html.escape import visible_plain
from drpo.report.html.quantities import finite, percent, plain
from drpo.report.run.history import History, Record
from drpo.report.svg.charts import BOTTOM, LEFT, RIGHT, TOP, Upright, figure, grid, horizontal, svg
from drpo.report.svg.scales import Linear, Log, Scale


@dataclass(frozen=True)
class Histogram:
    """What to draw from the records' ``histograms`` of that ``key``."""

    key: str
    title: str
    caption: str
    edges: tuple[float, ...]
    #: Vertical rules: value and label.
    rules: Sequence[tuple[float, str]] = ()
    #: The x axis is logarithmic, its first bin reaching down to zero.
    log: bool = False


def draw_histogram(histogram: Histogram, history: History) -> str:
    """Share of tokens per bin, first and last third of the steps overlaid, as an HTML figure."""
    return draw_shares(
        histogram,
        [(name, share) for name, records in thirds(history) if (share := _shares(records, histogram)) is not None],
    )


def draw_shares(histogram: Histogram, shares: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Named rows of shares per bin, at most two, overlaid, as an HTML figure."""
    if not shares:
        return figure(histogram.title, histogram.caption, "<p class='none'>Nothing was recorded.</p>")
    x = _horizontal(histogram)
    filled = [share for _, row in shares for share in row if share > 0]
    y = Upright(Log([1.0, 0.01, min(filled) / 2]))  # half the smallest, so that no filled bin lies on the axis
    body = [*grid(y, percent), *_axis(x, histogram)]
    # Late is drawn over early, and early is filled: both stay readable where they cross.
    for i, (name, row) in enumerate(shares):
        last = i == len(shares) - 1
        body.append(_outline(histogram, row, x, y, color=1 if last else 4, filled=not last))
        body.append(
            f"<text class='name c{1 if last else 4}' x='{RIGHT + 3}' y='{TOP + 10 + 15 * i}'>"
            f"{visible_plain(name)}</text>"
        )
    return figure(histogram.title, histogram.caption, svg(_summary(histogram, shares), body))


def thirds(history: History) -> list[tuple[str, list[Record]]]:
    """The updates of the first and of the last third of the steps, named; all if that is one step."""
    steps = sorted({record["step"] for record in history.updates})
    if len(steps) <= 1:
        return [(f"step {step}", history.updates) for step in steps]
    size = max(1, len(steps) // 3)
    return [
        (_span(part), [record for record in history.updates if part[0] <= record["step"] <= part[-1]])
        for part in (steps[:size], steps[-size:])
    ]


def _span(steps: Sequence[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]}–{steps[-1]}"


def _shares(records: Sequence[Record], histogram: Histogram) -> list[float] | None:
    """Share of the tokens in each bin; None without tokens, or if no record has these bins."""
    bins = len(histogram.edges) - 1
    total = [0.0] * bins
    for record in records:
        recorded = record.get("histograms")
        counts = recorded.get(histogram.key) if isinstance(recorded, dict) else None
        if isinstance(counts, list) and len(counts) == bins:
            total = [sum_ + (finite(count) or 0.0) for sum_, count in zip(total, counts, strict=True)]
    tokens = sum(total)
    return [count / tokens for count in total] if tokens > 0 else None


def _horizontal(histogram: Histogram) -> Scale:
    if not histogram.log:
        scale = Linear(histogram.edges[0], histogram.edges[-1], ticks=6)
        scale.low, scale.high = histogram.edges[0], histogram.edges[-1]
        return scale
    return Log([histogram.edges[0], *histogram.edges[1:]])


def _axis(x: Scale, histogram: Histogram) -> list[str]:
    parts = [f"<path class='axis' d='M{LEFT} {BOTTOM}H{RIGHT}'/>"]
    for tick in x.ticks():
        parts.append(
            f"<text x='{horizontal(x, tick):.1f}' y='{BOTTOM + 16}' text-anchor='middle'>"
            f"{visible_plain(plain(tick))}</text>"
        )
    for value, label in histogram.rules:
        at = horizontal(x, value)
        parts.append(
            f"<path class='rule' d='M{at:.1f} {TOP}V{BOTTOM}'/>"
            f"<text class='rule' x='{at + 3:.1f}' y='{TOP + 9}'>{visible_plain(label)}</text>"
        )
    return parts


def _outline(histogram: Histogram, row: Sequence[float], x: Scale, y: Upright, color: int, filled: bool) -> str:
    """Steps along the bins; an empty bin lies on the axis."""
    places = [f"{horizontal(x, histogram.edges[0]):.1f} {BOTTOM}"]
    for left, right, share in zip(histogram.edges, histogram.edges[1:], row, strict=False):
        at = y.at(share) if share > 0 else BOTTOM
        places += [f"{horizontal(x, left):.1f} {at:.1f}", f"{horizontal(x, right):.1f} {at:.1f}"]
    places.append(f"{horizontal(x, histogram.edges[-1]):.1f} {BOTTOM}")
    return f"<g class='c{color}'><path class='{'area' if filled else 'line'}' d='M{'L'.join(places)}'/></g>"


def _summary(histogram: Histogram, shares: Sequence[tuple[str, Sequence[float]]]) -> str:
    peaks = []
    for name, row in shares:
        top = max(range(len(row)), key=row.__getitem__)
        peaks.append(
            f"{f'{name}: ' if name else ''}{percent(row[top])} of tokens between {plain(histogram.edges[top])} "
            f"and {plain(histogram.edges[top + 1])}, the largest bin"
        )
    return f"{histogram.title}. {'; '.join(peaks)}"
