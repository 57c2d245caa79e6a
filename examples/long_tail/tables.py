"""The study's tables, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from drpo.lab import statistics as stats
from examples.long_tail.analysis import Evaluated, Verdict
from examples.long_tail.records import Run
from examples.long_tail.study import ARMS, HYPOTHESES, Cell

MINUS = "−"


def arms_table(found: Evaluated) -> list[str]:
    """A line an arm, at its own best threshold and rate."""
    lines = [
        "| arm | threshold | rate | final value (95 %) | best | largest fall | collapsed | below μ | final value "
        "at the shared rate |",
        "|" + " --- |" * 9,
    ]
    for name, cell in found.best.items():
        final = stats.mean(found.scores(cell))
        best, fall = (float(found.scores(cell, score).mean()) for score in (lambda r: r.best, lambda r: r.drawdown))
        shared = float(found.scores(found.shared[name]).mean())
        lines.append(
            f"| `{name}` | {threshold(cell)} | {cell.learning_rate:g} | {final.value:.3f} ({final.low:.3f} to "
            f"{final.high:.3f}) | {best:.3f} | {fall:.3f} | {_count(found, cell, collapsed)} | "
            f"{_count(found, cell, below_logging)} | {shared:.3f} ({threshold(found.shared[name])}) |"
        )
    return lines


def collapsed(run: Run) -> bool:
    """Ended with less than half of the best it had."""
    return run.final < run.best / 2


def below_logging(run: Run) -> bool:
    """Ended worse than the policy that made the log."""
    return run.final < run.start


def threshold(cell: Cell) -> str:
    """As the table shows it; an arm with a single one has no choice."""
    return f"{cell.threshold:g}" if len(ARMS[cell.arm].thresholds) > 1 else "–"


def _count(found: Evaluated, cell: Cell, what: Callable[[Run], bool]) -> str:
    return f"{sum(map(what, found.runs[cell]))}/{len(found.runs[cell])}"


def verdicts_table(own: Sequence[Verdict], shared: Sequence[Verdict]) -> list[str]:
    """A line a hypothesis of one setting."""
    lines = [
        "| ours − theirs | difference (95 %) | p, Holm | verdict | detectable | P(ours better) | variance, ours to "
        "theirs (95 %) | at the shared rate |",
        "|" + " --- |" * 8,
    ]
    for at_own, at_shared in zip(own, shared, strict=True):
        gap, spread = at_own.difference, at_own.spread
        lines.append(
            f"| `{at_own.ours}` − `{at_own.theirs}` | {signed(gap.value)} ({signed(gap.low)} to {signed(gap.high)}) | "
            f"{at_own.p:.2g} | {at_own.said} | {at_own.detectable.value:.3f} | {at_own.improvement.value:.2f} | "
            f"{spread.value:.2g} ({spread.low:.2g} to {spread.high:.2g}) | {signed(at_shared.difference.value)}, "
            f"{at_shared.said} |"
        )
    return lines


def signed(value: float) -> str:
    """Three digits with a sign."""
    return f"{value:+.3f}".replace("-", MINUS)


def sentences(own: Sequence[Verdict]) -> list[str]:
    """What one setting's verdicts say, a line for each arm whose hypotheses they are."""
    words_of = {"better": "better than", "worse": "worse than", "undecided": "undecided against"}
    lines = []
    for name in dict.fromkeys(ours for ours, _ in HYPOTHESES):
        parts = []
        for said, words in words_of.items():
            others = [f"`{verdict.theirs}`" for verdict in own if verdict.ours == name and verdict.said == said]
            if others:
                parts.append(f"{words} {', '.join(others)}")
        lines.append(f"- `{name}`: {'; '.join(parts)}.")
    return lines


def scale(found: Evaluated) -> str:
    """What the logging policy earns."""
    starts = found.scores(next(iter(found.best.values())), lambda run: run.start)
    return f"{float(np.mean(starts)):.3f}"


def grouped(verdicts: Sequence[Verdict]) -> Mapping[str, list[Verdict]]:
    """Setting → its verdicts."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.setting, []).append(verdict)
    return groups
