"""The page of a study: its verdicts, its arms over seeds, and every run with its command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from drpo.report.html.command import command
from drpo.report.html.escape import visible, visible_plain
from drpo.report.html.frame import Section, document
from drpo.report.html.quantities import mean, percent, plain
from drpo.report.html.table import Cell, Column, number, table, words
from drpo.report.html.table import Row as TableRow
from drpo.report.study.area import area_charts
from drpo.report.study.curves import ACCURACY, COURSES, Curves, arm_lines, course, over_delta, over_settings
from drpo.report.study.forest import in_short, verdicts_section
from drpo.report.study.seeds import seed_charts

Row = Mapping[str, Any]
AllCurves = Mapping[tuple[str, str, str, str], Sequence[tuple[float, float, float, float]]]

#: Columns of the summary: heading, key, and how it is written; what a reader asks first, then all else.
FIRST = (("drawdown", "drawdown", plain), ("collapsed", "collapsed", plain))
MORE = (
    ("std", "spread", plain),
    ("area", "area", plain),
    ("best", "best_accuracy", plain),
    ("mean |π − μ|", "shift", plain),
    ("p99", "shift_p99", plain),
    ("beyond δ, Â > 0", "beyond_delta_positive", percent),
    ("beyond δ, Â < 0", "beyond_delta_negative", percent),
    ("w < 0", "corrective_share", percent),
    ("|log π − log μ|", "mismatch", plain),
    ("entropy", "entropy", plain),
)


def build_study_page(
    study: Row,
    rows: Sequence[Row],
    verdicts: Sequence[Row],
    summaries: Mapping[str, Sequence[Row]],
    curves: AllCurves,
    areas: Mapping[str, Row] | None = None,
) -> str:
    """The page as HTML: no script but the page's own, no request, the same bytes for the same study.

    Args:
        study: as study.yaml holds it; settings with every number that they have, also by default, are compared by it.
        rows: one a planned run, as results.csv holds them; ``page`` is the address of its report, relative to this
            page, where there is one.
        verdicts: as verdicts.json holds them.
        summaries: phase → a row for each setting and arm over its seeds.
        curves: (phase, setting, arm, curve) → the points over seeds; a curve is ``accuracy`` or a key of
            :data:`drpo.report.study.curves.COURSES`.
        areas: setting → what :func:`area_charts` reads, of a study with draws.
    """
    rows = [{**row, "number": number} for number, row in enumerate(rows, 1)]
    begun = _begun(study, rows)
    told = begun + (["all"] if len(begun) == len(study["settings"]) else [])
    return document(
        study["title"],
        _head(study, rows, begun, [verdict for verdict in verdicts if verdict["setting"] in told]),
        [
            verdicts_section([verdict for verdict in verdicts if verdict["setting"] in told]),
            _across(study, rows, summaries),
            *(_setting(study, rows, summaries, curves, setting, (areas or {}).get(setting)) for setting in begun),
            _runs(rows),
        ],
    )


def _phases(study: Row) -> dict[str, str]:
    """Phase → what its runs have in common."""
    shared = "over all drawn configurations" if study.get("draws") else "at the shared learning rate"
    return {"shared": shared, "best": "each arm at its best"}


def _begun(study: Row, rows: Sequence[Row]) -> list[str]:
    """The settings in which a run has started; all of them before any has."""
    started = {row["setting"] for row in rows if row["status"] != "missing"}
    return [setting for setting in study["settings"] if setting in started or not started]


def _head(study: Row, rows: Sequence[Row], begun: Sequence[str], verdicts: Sequence[Row]) -> str:
    statuses = [row["status"] for row in rows]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    settings, seeds = ", ".join(study["settings"]), ", ".join(map(str, study["seeds"]))
    later = ", ".join(setting for setting in study["settings"] if setting not in begun)
    left = f"<p class='soft'>Not run yet (this page has only their commands): {visible(later)}.</p>"
    return (
        f"<h1>{visible(study['title'])}</h1><p>{visible(study['question'])}</p>{in_short(verdicts)}"
        f"<p class='soft'>Arms: {visible(', '.join(study['arms']))}. Settings: {visible(settings)}. Seeds: {seeds}. "
        f"Runs: {visible(counts)}.</p>{left if later else ''}"
    )


def _across(study: Row, rows: Sequence[Row], summaries: Mapping[str, Sequence[Row]]) -> Section | None:
    parts = []
    for phase, said in _phases(study).items():
        mine = [row for row in rows if row["phase"] == phase]
        if mine and (figures := over_settings(study, mine, summaries[phase])):
            parts.append(f"<h3>{said.capitalize()}</h3>{_grid(figures)}")
    return Section("Across settings", "".join(parts)) if parts else None


def _setting(
    study: Row,
    rows: Sequence[Row],
    summaries: Mapping[str, Sequence[Row]],
    curves: AllCurves,
    setting: str,
    area: Row | None,
) -> Section:
    parts = []
    if area:
        parts.append(f"<h3>Along what is drawn</h3>{_grid(area_charts(study, area))}")
    for phase, said in _phases(study).items():
        mine = [row for row in rows if row["setting"] == setting and row["phase"] == phase]
        if mine:
            summary = [row for row in summaries[phase] if row["setting"] == setting]
            own = {(arm, name): found for (*place, arm, name), found in curves.items() if place == [phase, setting]}
            figures = _charts(study, mine, summary, own)
            parts.append(f"<h3>{said.capitalize()}</h3>{figures}{_summary(setting, phase, summary, mine)}")
    return Section(setting, "".join(parts))


def _charts(study: Row, rows: Sequence[Row], summary: Sequence[Row], curves: Curves) -> str:
    """How the arms got on and where they ended; what their trust regions met is folded."""
    lines = arm_lines(study)
    final = {row["arm"]: row["final_accuracy"] for row in summary}
    first = [course(lines, curves, ACCURACY, final), *over_delta(study, rows, summary)]
    seeds = seed_charts(rows, summary, {arm: line.color for arm, line in lines.items()})
    more = [course(lines, curves, kind, final) for kind in COURSES]
    said = "Tokens beyond δ and corrective tokens over training"
    return f"{_grid([*first, *seeds])}<details><summary>{said}</summary>{_grid(more)}</details>"


def _grid(figures: Sequence[str]) -> str:
    return f"<div class='charts'>{''.join(figures)}</div>"


def _summary(setting: str, phase: str, summary: Sequence[Row], rows: Sequence[Row]) -> str:
    """A row an arm, each with a link to the first of its ``rows``, the runs."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(row["arm"], row["number"])
    named = [
        f"<a href='#run-{first[row['arm']]}'>{visible(row['arm'])}</a>" if row["arm"] in first else ""
        for row in summary
    ]
    names = [Cell(link) if link else words(row["arm"]) for link, row in zip(named, summary, strict=True)]
    columns = [
        Column("arm", words=True),
        Column("final accuracy", "mean over seeds of the mean of the last evaluations"),
        Column("95 %", "confidence interval over seeds"),
        *(Column(heading) for heading, _, _ in FIRST),
        Column("ended", "runs that finished or failed, of those planned"),
        Column("failed"),
    ]
    body = [
        TableRow(
            [
                name,
                number(row["final_accuracy"]),
                Cell("–" if row["low"] is None else f"{plain(row['low'])} to {plain(row['high'])}"),
                *(number(row[key], text) for _, key, text in FIRST),
                Cell(f"{row['finished'] + row['failed']} of {row['runs']}", str(row["finished"] + row["failed"])),
                number(row["failed"], plain),
            ]
        )
        for name, row in zip(names, summary, strict=True)
    ]
    more = [Column("arm", words=True), *(Column(heading) for heading, _, _ in MORE)]
    rest = [
        TableRow([name, *(number(row[key], text) for _, key, text in MORE)])
        for name, row in zip(names, summary, strict=True)
    ]
    caption = f"arms in {setting}, {phase}"
    return (
        f"{table(caption, columns, body)}<details><summary>More figures of each arm, means over seeds</summary>"
        f"{table(f'{caption}, more', more, rest)}</details>"
    )


def _runs(rows: Sequence[Row]) -> Section:
    places = dict.fromkeys((row["phase"], row["setting"]) for row in rows)
    parts = []
    for phase, setting in places:
        mine = [row for row in rows if (row["phase"], row["setting"]) == (phase, setting)]
        finished = sum(row["status"] == "finished" for row in mine)
        # Open where something is left to see: a reason, a run still to come among others that came.
        missing = sum(row["status"] == "missing" for row in mine)
        opened = "" if len(mine) in (finished, missing) else " open"
        said = f"{visible(setting)}, {phase}: {finished} of {len(mine)} finished"
        parts.append(f"<details{opened}><summary>{said}</summary>{''.join(map(_run, mine))}</details>")
    average = mean(row["seconds"] for row in rows if row["status"] == "finished")
    took = f"A finished run took {plain(average)} s on average. " if average else ""
    said = f"<p class='soft'>{took}All figures are in results.csv.</p>"
    return Section("Every run", f"{said}{''.join(parts)}")


def _run(row: Row) -> str:
    attempt = f", {row['attempt']}" if row["attempt"] else ""
    name = f"{row['phase']}: {row['setting']} × {row['arm']}{attempt}, seed {row['seed']}"
    reason = f" <span class='soft'>{visible(row['reason'], 600)}</span>" if row["reason"] else ""
    good = " finished" if row["status"] == "finished" else ""
    status = f"<span class='status{good}'>{visible(row['status'])}</span>"
    page = row.get("page")
    report = f" · <a href='{visible_plain(quote(page))}'>report of this run</a>" if page else ""
    return (
        f"<p id='run-{row['number']}'>{visible(name)} {status} final accuracy "
        f"{plain(row.get('final_accuracy'))}{report}{reason}</p>{command(row['command'], 2000)}"
    )
