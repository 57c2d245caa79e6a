"""The page of `drpo compare`: one self-contained HTML file, from plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from drpo.comparison.result import FIGURES, Answered, GroupCurve, RunComparison, RunDifference, RunRow
from drpo.report.html.command import command
from drpo.report.html.escape import visible
from drpo.report.html.example import Answer as ShownAnswer
from drpo.report.html.example import example
from drpo.report.html.frame import Section, document
from drpo.report.html.quantities import finite, percent, plain, seconds, signed
from drpo.report.html.table import Cell, Column, Row, number, table, words
from drpo.report.palette import DASHES, paint
from drpo.report.svg.charts import Chart, Line, draw
from drpo.report.svg.dot_rows import DotChart, DotRow, draw_rows
from drpo.report.svg.points import Point
from drpo.report.svg.scales import Linear

#: Longest setting that is written out.
LONGEST = 200
#: Figures that are shares.
SHARES = ("accuracy", "beyond_delta")
#: Most configurations that are drawn in one chart, and answer side by side.
MOST_LINES, MOST_SIDES = 12, 4


def build_comparison_page(found: RunComparison) -> str:
    """The page as HTML: no script but the page's own, no request, the same bytes for the same comparison."""
    remarks = "".join(f"<li>{visible(remark, 4 * LONGEST)}</li>" for remark in found.remarks)
    notes = f"<ul class='notes'>{remarks}</ul>" if remarks else ""
    return document(
        f"{len(found.rows)} runs compared",
        f"<h1>{visible(found.sentence, 4 * LONGEST)}</h1><p class='soft'>{_counted(found)}</p>{notes}",
        [_differences(found), _curves(found), _settings(found), _runs(found), _responses(found.answered)],
    )


def _counted(found: RunComparison) -> str:
    counts = Counter(row.group for row in found.rows)
    said = ", ".join(f"{visible(label, LONGEST)} × {count}" for label, count in counts.items())
    return f"{len(found.rows)} runs of {len(counts)} configurations: {said}."


def _differences(found: RunComparison) -> Section | None:
    """A forest a figure, and the same as a table."""
    if not found.differences:
        return None
    reference = visible(found.differences[0].theirs, LONGEST)
    by_figure = {figure: [one for one in found.differences if one.figure == figure] for figure in FIGURES}
    charts = "".join(_forest(figure, some) for figure, some in by_figure.items() if some)
    columns = [
        Column("figure", words=True),
        Column("configuration", words=True),
        Column("difference"),
        Column("low", "lower end of the 95 % confidence interval"),
        Column("high", "upper end of the 95 % confidence interval"),
        Column("basis", "how the interval was made", words=True),
    ]
    rows = [Row(_cells(one)) for one in found.differences]
    return Section(
        f"Against {found.differences[0].theirs}",
        f"<p class='soft'>Each configuration minus {reference}, with 95 % confidence intervals. An interval that "
        f"excludes 0 is filled.</p><div class='charts'>{charts}</div>{table('differences', columns, rows)}",
        name="differences",
    )


def _cells(one: RunDifference) -> list[Cell]:
    numbers = map(_signed, (one.value, one.low, one.high))
    return [words(FIGURES[one.figure]), words(one.ours, LONGEST), *numbers, words(one.basis)]


def _signed(value: float | None) -> Cell:
    return Cell("–", "") if value is None else Cell(signed(value), f"{value:.9g}")


def _forest(figure: str, some: Sequence[RunDifference]) -> str:
    ends = [end for one in some for end in (one.value, one.low, one.high) if end is not None]
    rows = [
        DotRow(
            one.ours,
            signed(one.value),
            value=one.value,
            interval=None if one.low is None or one.high is None else (one.low, one.high),
            shape="dot" if one.is_clear else "ring",
            color=_meaning(one),
        )
        for one in some
    ]
    title = FIGURES[figure].capitalize()
    return draw_rows(DotChart(title, "", rows, zero=0.0), Linear(min([*ends, 0.0]), max([*ends, 0.0])))


def _meaning(one: RunDifference) -> int:
    """Blue: better, vermilion: worse, gray: neither is clear."""
    return 4 if not one.is_clear else 1 if one.value > 0 else 2


def _curves(found: RunComparison) -> Section | None:
    shown = list(found.groups)[:MOST_LINES]
    blank = _lines({label: found.groups[label] for label in shown})
    by_figure: dict[str, list[GroupCurve]] = {}
    for curve in found.curves:
        if curve.points and curve.group in blank:
            by_figure.setdefault(curve.figure, []).append(curve)
    if not by_figure:
        return None
    said = "Mean over the runs that reached a step; the band is their range. " * (len(found.rows) > len(found.groups))
    if len(shown) < len(found.groups):
        said += f"The first {len(shown)} of {len(found.groups)} configurations are drawn."
    charts = "".join(_chart(curves, blank) for curves in by_figure.values())
    return Section("Curves", f"<p class='soft'>{said}</p><div class='charts'>{charts}</div>")


def _chart(curves: Sequence[GroupCurve], blank: Mapping[str, Line]) -> str:
    figure = curves[0].figure
    lines = [replace(blank[curve.group], points=[_point(*at) for at in curve.points]) for curve in curves]
    last = max(point[0] for curve in curves for point in curve.points)
    write = percent if figure in SHARES else plain
    from_zero = figure not in ("entropy", "response_length")
    chart = Chart(curves[0].title, "", lines, log=figure == "gradient_norm", text=write, from_zero=from_zero)
    return draw(chart, (0.0, float(max(1, last))))


def _point(step: int, value: float, low: float, high: float) -> Point:
    return Point(float(step), finite(value), finite(low), finite(high))


def _lines(groups: Mapping[str, str]) -> dict[str, Line]:
    """Label → its line: the objective's color; several configurations of one objective differ in dashes, or, if they
    are many, from light to dark."""
    lines = {}
    for label, objective in groups.items():
        alike = [other for other, name in groups.items() if name == objective]
        place, base = alike.index(label), paint(objective)
        if len(alike) == 1:
            lines[label] = Line(label, (), base.color, base.dash)
        elif len(alike) <= len(DASHES):
            lines[label] = Line(label, (), base.color, place)
        else:
            lines[label] = Line(label, (), base.color, shade=place / (len(alike) - 1))
    return lines


def _settings(found: RunComparison) -> Section | None:
    if not found.settings:
        return None
    columns = [Column("setting", words=True), *(Column(label, words=True) for label in found.groups)]
    rows = [
        Row([words(key), *(words("–" if value is None else value, LONGEST) for value in values)])
        for key, values in found.settings.items()
    ]
    return Section(
        "Settings that differ",
        f"<p class='soft'>All other settings are equal, but for the seed.</p>{table('settings', columns, rows)}",
    )


def _runs(found: RunComparison) -> Section:
    columns = [
        Column("run", words=True),
        Column("configuration", words=True),
        Column("seed"),
        Column("status", words=True),
        Column("steps"),
        Column("accuracy before", "held-out, before training"),
        Column("accuracy", "held-out, at the last evaluation"),
        Column("low", "lower end of the 95 % confidence interval"),
        Column("high", "upper end of the 95 % confidence interval"),
        Column("best accuracy"),
        Column("at step"),
        Column("reward", "mean training reward over the second half of the steps"),
        Column("tokens", "response tokens trained on"),
        Column("time", "sampling, grading, training and evaluation"),
    ]
    commands = "".join(command(f"drpo report {row.run}", 1000) for row in found.rows[:1])
    return Section(
        "Every run",
        f"{table('runs', columns, [_run(row) for row in found.rows])}<p class='soft'>The page of a run:</p>{commands}",
    )


def _run(row: RunRow) -> Row:
    return Row(
        [
            words(row.run, LONGEST),
            words(row.group, LONGEST),
            Cell("–" if row.seed is None else str(row.seed)),
            words(row.status),
            number(row.steps),
            number(row.accuracy_before, percent),
            number(row.accuracy, percent),
            number(row.accuracy_low, percent),
            number(row.accuracy_high, percent),
            number(row.best_accuracy, percent),
            number(row.best_step),
            number(row.reward),
            number(row.tokens),
            number(row.seconds, seconds),
        ]
    )


def _responses(answered: Sequence[Answered]) -> Section | None:
    if not answered:
        return None
    differ = sum(one.disagrees for one in answered)
    return Section(
        "The same prompts",
        f"<p class='soft'>The last evaluation's response of one run a configuration to held-out prompts that several "
        f"answered. On {differ} of these {len(answered)} the rewards differ.</p>" + "".join(map(_example, answered)),
    )


def _example(one: Answered) -> str:
    sides = [
        (label, ShownAnswer(answer.text, answer.reward)) for label, answer in list(one.answers.items())[:MOST_SIDES]
    ]
    return example(one.prompt, one.expected or None, sides)
