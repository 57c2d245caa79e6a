"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drpo.lab.results import Row, summary_rows
from drpo.lab.robustness import basins, sensitivities
from drpo.lab.statistics import Estimate
from drpo.lab.study import Study
from drpo.lab.verdict import Verdict

#: Columns of the summary: heading → key of :func:`drpo.lab.results.summary_rows`.
SUMMARY = {
    "area": "area",
    "best": "best_accuracy",
    "drawdown": "drawdown",
    "mean |π−μ|": "shift",
    "p99 |π−μ|": "shift_p99",
    "beyond δ, Â>0": "beyond_delta_positive",
    "beyond δ, Â<0": "beyond_delta_negative",
    "w<0": "corrective_share",
    "|log π−log μ|": "mismatch",
    "entropy": "entropy",
}
RUNS = ("phase", "setting", "arm", "attempt", "seed", "status", "final_accuracy", "area", "drawdown", "reason")
BASIN = (
    "Gain: final accuracy over that before training. Basin width: the share of blocks that keep 80 % of the reference "
    "gain, the 95th percentile over all arms."
)
SENSITIVITY = (
    "Φ: what tuning in each setting gains over the best try for all of them, in units of a setting's range (Adkins et "
    "al. 2024)."
)


def markdown(study: Study, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> str:
    """The whole of results.md: verdicts, arms over seeds, every run."""
    parts = [f"# {study.title}", study.question, "## Verdicts"]
    parts += [f"**{verdict.hypothesis.claim}** {verdict.sentence}" for verdict in verdicts] or ["No hypotheses."]
    for phase, heading in headings(study).items():
        if any(row["phase"] == phase for row in rows):
            parts += [f"## {heading}", summary_table(study, rows, phase)]
    if wide := basins(study, rows):
        head = ("setting", "arm", "blocks", "mean gain", "gain to keep", "basin width (95 %)", "collapsed (95 %)")
        lines = [[*one[:5], percent(one.width), percent(one.collapsed)] for one in wide]
        parts += [f"## Basins\n\n{table(head, lines)}", BASIN]
    if sensitive := sensitivities(study, rows):
        parts += [f"## Sensitivity to tuning\n\n{table(('arm', 'tries', 'settings', 'Φ'), sensitive)}", SENSITIVITY]
    parts += [
        "## Every run",
        table(RUNS, [[row.get(name) for name in RUNS] for row in rows]),
        "results.csv has every figure and the command of each.",
    ]
    return "\n\n".join(parts) + "\n"


def headings(study: Study) -> dict[str, str]:
    """Phase → the heading of its tables."""
    shared = "Over all drawn configurations" if study.draws else "At the shared learning rate"
    return {"shared": shared, "best": "Each arm at its best"}


def percent(share: Estimate | None) -> str | None:
    """A share with its interval."""
    return None if share is None else f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def summary_table(study: Study, rows: Sequence[Row], phase: str) -> str:
    """Arms by setting: mean of the final accuracy, its 95 % confidence interval, and means over seeds."""
    lines = []
    for row in summary_rows(study, rows, phase):
        final = "–" if row["final_accuracy"] is None else f"{row['final_accuracy']:.3f}"
        interval = "–" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        ended = f"{row['finished']} of {row['runs']}" + (f", {row['failed']} failed" if row["failed"] else "")
        collapsed = (
            row["collapsed"]
            if row["collapse_interval"] is None
            else (f"{row['collapsed']} (≤ {row['collapse_interval'].high:.0%})")
        )
        lines.append(
            [
                row["setting"],
                row["arm"],
                ended,
                final,
                interval,
                row["spread"],
                collapsed,
                *(row[key] for key in SUMMARY.values()),
            ]
        )
    return table(("setting", "arm", "finished", "final accuracy", "95 %", "std", "collapsed", *SUMMARY), lines)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; – for None."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
