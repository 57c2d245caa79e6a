"""A study's verdicts: a forest plot for each hypothesis, and what each verdict says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from drpo.report.html.escape import visible
from drpo.report.html.frame import Section
from drpo.report.html.quantities import finite, plain, signed
from drpo.report.svg.dot_rows import DotChart, DotRow, Shape, draw_rows
from drpo.report.svg.scales import Linear, Log, Scale

Row = Mapping[str, Any]

#: Answer → shape and color of its mark; the shape alone says it where colors do not show.
MARKS: dict[str, tuple[Shape, int]] = {
    "better": ("dot", 1),
    "worse": ("square", 2),
    "equivalent": ("diamond", 3),
    "undecided": ("ring", 4),
}
#: Answer → the class that colors its sentence; what decides nothing has none.
MEANINGS = {"better": "c1", "worse": "c2", "equivalent": "c3"}
#: Answer → its mark in a text.
SIGNS = {"better": "●", "worse": "■", "equivalent": "◆", "undecided": "○"}
_LEGEND = {
    "better": "better (the first arm than the second)",
    "worse": "worse",
    "equivalent": "equivalent within the margin",
    "undecided": "undecided",
}
_KEY = ", ".join(f"<b class='c{MARKS[answer][1]}'>{SIGNS[answer]}</b> {said}" for answer, said in _LEGEND.items())
INTRODUCTION = (
    "<p class='soft'>Each row is the difference between two arms, paired by seed, with its 95 % confidence interval. "
    f"Right of the line the first arm is higher, left of it the second. {_KEY}. The answers are after Holm's "
    "correction over the study's comparisons; the intervals are not corrected, so that one that excludes the line may "
    "be undecided.</p>"
)


def verdicts_section(verdicts: Sequence[Row]) -> Section:
    """Every hypothesis as a picture of its settings, then every verdict as a sentence."""
    if not verdicts:
        return Section("Verdicts", "<p class='soft'>The study has no hypotheses.</p>")
    claims = [list(group) for _, group in groupby(verdicts, key=lambda verdict: verdict["hypothesis"])]
    scales = _scales(verdicts)
    pictures = "".join(_forest(claim, scales[_measure(claim[0])]) for claim in claims)
    sentences = "".join(map(_sentences, claims))
    words = f"<details><summary>The same in words</summary>{sentences}</details>"
    return Section("Verdicts", f"{INTRODUCTION}<div class='charts'>{pictures}</div>{words}")


def in_short(verdicts: Sequence[Row]) -> str:
    """A sentence on what the study decided, then every pair of arms by its answer; HTML.

    A hypothesis counts by its verdict over all settings; where there is none, by those of its settings.
    """
    by_answer: dict[str, list[str]] = {}
    hypotheses = decided = 0
    for _, group in groupby(verdicts, key=lambda verdict: verdict["hypothesis"]):
        claim = list(group)
        shown = [verdict for verdict in claim if verdict["setting"] == "all"] or claim
        answers = [verdict["answer"] for verdict in shown]
        hypotheses += 1
        decided += any(answer in MEANINGS for answer in answers)
        for answer in dict.fromkeys(answers):
            where = f" in {answers.count(answer)} of {len(shown)} settings" if len(shown) > 1 else ""
            by_answer.setdefault(answer, []).append(_pair(claim[0], answer) + where)
    if not by_answer:
        return ""
    if hypotheses == 1:
        lead = f"The hypothesis is {'decided' if decided else 'undecided'}."
    else:
        lead = f"{decided or 'None'} of {hypotheses} hypotheses {'is' if decided < 2 else 'are'} decided."
    parts = [
        f"<li class='{MEANINGS.get(answer, '')}'><span><b>{SIGNS.get(answer, '–')} {visible(answer.capitalize())}</b>: "
        f"{'; '.join(by_answer[answer])}.</span></li>"
        for answer in [*MARKS, *(other for other in by_answer if other not in MARKS)]
        if answer in by_answer
    ]
    return f"<p><b>{lead}</b></p><ul class='notes tight'>{''.join(parts)}</ul>"


def _pair(verdict: Row, answer: str) -> str:
    """The two arms of a hypothesis, in the words of its answer."""
    hypothesis = verdict["hypothesis"]
    between = {"better": "than", "worse": "than", "equivalent": "and"}.get(answer, "against")
    what = f" in variance of {_metric(verdict)}" if hypothesis["compare"] == "variance" else ""
    rate = ", each at its best" if hypothesis["at"] == "best" else ""
    return f"<b>{visible(hypothesis['ours'])}</b> {between} {visible(hypothesis['theirs'])}{what}{rate}"


def _metric(verdict: Row) -> str:
    return visible(verdict["metric"].replace("_", " "))


def _measure(verdict: Row) -> tuple[str, str]:
    """What is compared: hypotheses that share it share an axis."""
    return verdict["hypothesis"]["compare"], verdict["metric"]


def _range(verdict: Row) -> tuple[float, float, float] | None:
    found = verdict["found"] or {}
    ends = [finite(found.get(key)) for key in ("value", "low", "high")]
    return None if None in ends else tuple(ends)  # pyright: ignore[reportReturnType]


def _scales(verdicts: Sequence[Row]) -> dict[tuple[str, str], Scale]:
    found: dict[tuple[str, str], Scale] = {}
    for measure in dict.fromkeys(map(_measure, verdicts)):
        values = [end for verdict in verdicts if _measure(verdict) == measure for end in _range(verdict) or ()]
        if measure[0] == "variance":
            found[measure] = Log([*values, 1.0])
        else:
            found[measure] = Linear(min([*values, 0.0]), max([*values, 0.0]))
    return found


def _forest(verdicts: Sequence[Row], x: Scale) -> str:
    hypothesis, metric = verdicts[0]["hypothesis"], verdicts[0]["metric"].replace("_", " ")
    ratio = hypothesis["compare"] == "variance"
    arms = " / ".join if ratio else " − ".join
    what = f"Variance of {metric}" if ratio else metric.capitalize()
    rate = ", each at its best" if hypothesis["at"] == "best" else ""
    side = (
        f"Left of the line {hypothesis['ours']} varies less."
        if ratio
        else (f"Right of the line {hypothesis['ours']} is higher.")
    )
    caption = visible(f"{what}: {arms((hypothesis['ours'], hypothesis['theirs']))}{rate}. {side}")
    rows = [_row(verdict, ratio) for verdict in verdicts]
    return draw_rows(DotChart(hypothesis["claim"], caption, rows, zero=1.0 if ratio else 0.0), x)


def _row(verdict: Row, ratio: bool) -> DotRow:
    together = verdict["setting"] == "all"
    name = "all settings" if together else verdict["setting"]
    known = _range(verdict)
    if known is None:
        return DotRow(name, verdict["answer"], color=4)
    value, low, high = known
    shape, color = MARKS[verdict["answer"]]
    said = plain(value) if ratio else signed(value)
    return DotRow(
        name,
        f"{said} {verdict['answer']}",
        value=value,
        interval=(low, high),
        shape=shape,
        color=color,
        colored=True,
        bold=together,
    )


def _sentences(verdicts: Sequence[Row]) -> str:
    """All of a hypothesis in words."""
    lead = [verdict for verdict in verdicts if verdict["setting"] == "all"]
    rest = [verdict for verdict in verdicts if verdict["setting"] != "all"]
    claim = visible(verdicts[0]["hypothesis"]["claim"])
    return f"<p>{claim}</p>{_list([*lead, *rest])}"


def _list(verdicts: Sequence[Row]) -> str:
    items = (
        f"<li class='{MEANINGS.get(verdict['answer'], '')}'><span>{visible(verdict['sentence'])}</span></li>"
        for verdict in verdicts
    )
    return f"<ul class='notes tight'>{''.join(items)}</ul>"
