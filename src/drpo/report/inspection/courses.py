"""Curves of a log: by step, and by update within the rollout batches."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.inspection.result import Inspection, StepFigures, UpdateFigures
from drpo.report.html.frame import Section
from drpo.report.html.quantities import percent, plain
from drpo.report.palette import paint
from drpo.report.svg.charts import Chart, Line, draw
from drpo.report.svg.points import Point

#: Objectives whose curve over steps is drawn: the run's own, and those that change the gradient most.
MOST_LINES = 5


def by_step(found: Inspection) -> Section | None:
    """The curves over the steps; None where the log has fewer than two."""
    if len(found.steps) < 2:
        return None
    x = [float(step.step) for step in found.steps]
    charts = [
        *_common(x, found.steps, "step", found.delta),
        Chart("Mean |log π − log μ|", "in nats.", [_line(x, [step.mismatch for step in found.steps])]),
        Chart(
            "Gradient change",
            "Σ |Â r| |w − 1| / Σ |Â r|, for the run's objective and those that change it most.",
            _changes(found, x),
            log=True,
            text=percent,
        ),
    ]
    return Section("By step", _drawn(charts, x))


def by_update(found: Inspection) -> Section | None:
    """The curves over the updates of a rollout batch; None where the log has fewer than two."""
    if len(found.updates) < 2:
        return None
    x = [float(update.update) for update in found.updates]
    first, last = found.updates[0], found.updates[-1]
    said = (
        "<p>Each rollout batch is used for several updates, and the policy moves with each. From the first to the last "
        f"the mean |π − μ| goes from {plain(first.shift)} to {plain(last.shift)}, and the mean |log π − log μ| from "
        f"{plain(first.mismatch)} to {plain(last.mismatch)} nats.</p>"
    )
    return Section("By update", said + _drawn(_common(x, found.updates, "update", found.delta), x))


def _common(
    x: Sequence[float], moments: Sequence[StepFigures | UpdateFigures], label: str, delta: float
) -> list[Chart]:
    """What steps and updates both have."""
    return [
        Chart(
            "Mean |π − μ|",
            f"of each {label}'s tokens.",
            [_line(x, [moment.shift for moment in moments])],
            x_label=label,
        ),
        Chart(
            "Tokens beyond δ",
            f"share of tokens with |π − μ| > {plain(delta)}.",
            [_line(x, [moment.beyond_delta for moment in moments])],
            text=percent,
            x_label=label,
        ),
    ]


def _changes(found: Inspection, x: Sequence[float]) -> list[Line]:
    by_change = sorted(found.verdicts, key=lambda verdict: (verdict.objective != found.objective, -verdict.changed))
    return [
        Line(
            verdict.objective,
            [Point(at, value, None, None) for at, value in zip(x, verdict.changed_by_step, strict=True)],
            *paint(verdict.objective)[:2],
        )
        for verdict in by_change[:MOST_LINES]
        if verdict.changed > 0
    ]


def _line(x: Sequence[float], y: Sequence[float]) -> Line:
    return Line("", [Point(at, value, None, None) for at, value in zip(x, y, strict=True)])


def _drawn(charts: Sequence[Chart], x: Sequence[float]) -> str:
    return f"<div class='charts'>{''.join(draw(chart, (x[0], x[-1])) for chart in charts)}</div>"
