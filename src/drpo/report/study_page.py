"""The page of a study: its verdicts, its arms over seeds, and every run with its command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drpo.report.charts import Chart, Line, draw
from drpo.report.escape import visible
from drpo.report.history import Point, summarise
from drpo.report.quantities import mean, percent, plain
from drpo.report.scales import Log
from drpo.report.style import document

Row = Mapping[str, Any]

#: Arms in one picture: as many as there are colours.
ARMS = 4
#: Fewest arms of one objective that make a curve over δ.
POINTS = 3
PHASES = {"shared": "at the shared learning rate", "best": "at each arm's best"}
#: Courses over training: key, title, and how values are written.
CURVES = (
    ("accuracy", "Held-out accuracy", plain),
    ("beyond_delta", "Tokens with |π − μ| beyond δ", percent),
    ("corrective_share", "Tokens with w < 0", percent),
)
#: Columns of the summary: heading, key, and how it is written.
SUMMARY = (
    ("std", "spread", plain), ("area", "area", plain),
    ("best", "best_accuracy", plain), ("drawdown", "drawdown", plain), ("collapsed", "collapsed", plain),
    ("mean |π − μ|", "shift", plain), ("p99", "shift_p99", plain),
    ("beyond δ, Â > 0", "beyond_delta_positive", percent), ("beyond δ, Â < 0", "beyond_delta_negative", percent),
    ("w < 0", "corrective_share", percent), ("|log π − log μ|", "mismatch", plain), ("entropy", "entropy", plain),
)  # fmt: skip


def build_study_page(
    study: Row, rows: Sequence[Row], verdicts: Sequence[Row], summaries: Mapping[str, Sequence[Row]]
) -> str:
    """The page as HTML: no script, no request, the same bytes for the same study.

    Args:
        study: as study.yaml holds it.
        rows: one a planned run, with its ``curves``: lists of (step, value) under the names of :data:`CURVES`.
        verdicts: as verdicts.json holds them.
        summaries: phase → a row for each setting and arm over its seeds.
    """
    return document(study["title"], [
        _head(study, rows),
        _verdicts(verdicts),
        *(_setting(study, rows, summaries, setting) for setting in study["settings"]),
        _runs(rows),
    ])  # fmt: skip


def _head(study: Row, rows: Sequence[Row]) -> str:
    statuses = [row["status"] for row in rows]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    settings, seeds = ", ".join(study["settings"]), ", ".join(map(str, study["seeds"]))
    return (
        f"<h1>{visible(study['title'])}</h1><p>{visible(study['question'])}</p>"
        f"<p class='soft'>Arms: {visible(', '.join(study['arms']))}. Settings: {visible(settings)}. Seeds: {seeds}. "
        f"Runs: {visible(counts)}.</p>"
    )


def _verdicts(verdicts: Sequence[Row]) -> str:
    items = (
        f"<li{'' if verdict['answer'] in ('better', 'worse') else ' class=warn'}>"
        f"<b>{visible(verdict['hypothesis']['claim'])}</b> {visible(verdict['sentence'])}</li>"
        for verdict in verdicts
    )
    listed = "".join(items) or "<li>The study claims nothing.</li>"
    return (
        "<section><h2>Verdicts</h2><p class='soft'>Paired by seed; p after Holm's correction over the study's "
        "hypotheses in each setting. One in orange shows nothing either way.</p>"
        f"<ul class='notes'>{listed}</ul></section>"
    )


def _setting(study: Row, rows: Sequence[Row], summaries: Mapping[str, Sequence[Row]], setting: str) -> str:
    parts = []
    for phase, said in PHASES.items():
        mine = [row for row in rows if row["setting"] == setting and row["phase"] == phase]
        if not mine:
            continue
        curves = [_curves(mine, arms, *curve) for curve in CURVES for arms in _groups(list(study["arms"]))]
        by_delta = _by_delta(study, [row for row in summaries[phase] if row["setting"] == setting])
        summary = _summary([row for row in summaries[phase] if row["setting"] == setting])
        parts.append(f"<h3>{said.capitalize()}</h3><div class='charts'>{''.join([*curves, *by_delta])}</div>{summary}")
    return f"<section><h2>{visible(setting)}</h2>{''.join(parts)}</section>"


def _groups(arms: Sequence[str]) -> list[Sequence[str]]:
    return [arms[start : start + ARMS] for start in range(0, len(arms), ARMS)]


def _curves(
    rows: Sequence[Row], arms: Sequence[str], key: str, title: str, text: Callable[[float | None], str]
) -> str:
    last = max((step for row in rows for step, _ in row["curves"][key]), default=1)
    lines = []
    for colour, arm in enumerate(arms, start=1):
        seeds = [dict(row["curves"][key]) for row in rows if row["arm"] == arm]
        steps = sorted({step for curve in seeds for step in curve})
        points = [summarise(step, [curve[step] for curve in seeds if step in curve]) for step in steps]
        lines.append(Line(arm, points, colour))
    caption = "Mean over seeds, and their range."
    return draw(Chart(title, caption, lines, text=text), (0.0, float(last)))


def _by_delta(study: Row, summary: Sequence[Row]) -> list[str]:
    """Final accuracy over δ, a curve for each objective that has several arms that differ in it."""
    found: dict[str, list[Point]] = {}
    for row in summary:
        objective = study["arms"][row["arm"]].get("objective")
        if isinstance(objective, Mapping) and set(objective) == {"name", "delta"} and row["final_accuracy"] is not None:
            point = Point(float(objective["delta"]), row["final_accuracy"], row["low"], row["high"])
            found.setdefault(objective["name"], []).append(point)
    lines = [Line(name, sorted(points), colour, marks=True)
             for colour, (name, points) in enumerate(found.items(), start=1) if len(points) >= POINTS]  # fmt: skip
    if not lines:
        return []
    caption = "Interquartile mean over seeds with its 95 % interval."
    chart = Chart("Final accuracy against δ", caption, lines, x_label="δ")
    return [draw(chart, Log([point.x for line in lines for point in line.points]))]


def _summary(rows: Sequence[Row]) -> str:
    headings = ("arm", "ended", "failed", "final accuracy", "95 %", *(heading for heading, _, _ in SUMMARY))
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = []
    for row in rows:
        interval = "–" if row["low"] is None else f"{plain(row['low'])} to {plain(row['high'])}"
        ended = f"{row['finished'] + row['failed']} of {row['runs']}"
        cells = [ended, str(row["failed"]), plain(row["final_accuracy"]), interval]
        cells += [text(row[key]) for _, key, text in SUMMARY]
        body.append(f"<tr><td>{visible(row['arm'])}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<div class='scroll'><table class='grid'><tr>{head}</tr>{''.join(body)}</table></div>"


def _runs(rows: Sequence[Row]) -> str:
    blocks = []
    for row in rows:
        attempt = f", {row['attempt']}" if row["attempt"] else ""
        name = f"{row['phase']}: {row['setting']} × {row['arm']}{attempt}, seed {row['seed']}"
        reason = f" <span class='soft'>{visible(row['reason'], 600)}</span>" if row["reason"] else ""
        good = " finished" if row["status"] == "finished" else ""
        blocks.append(
            f"<p>{visible(name)} <span class='status{good}'>{visible(row['status'])}</span> final accuracy "
            f"{plain(row.get('final_accuracy'))}{reason}</p><pre>{visible(row['command'], 2000)}</pre>"
        )
    average = mean(row["seconds"] for row in rows if row["status"] == "finished")
    took = f"A finished run took {plain(average)} s on average. " if average else ""
    said = f"<p class='soft'>{took}results.csv has all figures.</p>"
    return f"<section><h2>Every run</h2>{said}{''.join(blocks)}</section>"
