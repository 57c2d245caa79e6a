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
INTRODUCTION = (
    "<p class='soft'>Differences paired by seed, with 95 % confidence intervals: <b class='c1'>●</b> better, "
    "<b class='c2'>■</b> worse, <b class='c3'>◆</b> equivalent within the margin, <b class='c4'>○</b> undecided, after "
    "Holm's correction over the study's comparisons. Intervals are not corrected: one that excludes the line may be "
    "undecided.</p>"
)


def verdicts_section(verdicts: Sequence[Row]) -> Section:
    """Every hypothesis as a picture of its settings, then every verdict as a sentence."""
    if not verdicts:
        return Section("Verdicts", "<p class='soft'>The study has no hypotheses.</p>")
    claims = [list(group) for _, group in groupby(verdicts, key=lambda verdict: verdict["hypothesis"])]
    scales = _scales(verdicts)
    pictures = "".join(_forest(claim, scales[_measure(claim[0])]) for claim in claims)
    sentences = "".join(map(_sentences, claims))
    return Section("Verdicts", f"{INTRODUCTION}<div class='charts'>{pictures}</div>{sentences}")


def in_short(verdicts: Sequence[Row]) -> str:
    """The answer to each hypothesis in a few words, over all settings where that was judged; HTML."""
    said = []
    for _, group in groupby(verdicts, key=lambda verdict: verdict["hypothesis"]):
        claim = list(group)
        lead = next((verdict for verdict in claim if verdict["setting"] == "all"), None)
        hypothesis = claim[0]["hypothesis"]
        pair = f"<b>{visible(hypothesis['ours'])}</b> against {visible(hypothesis['theirs'])}"
        what = f" in variance of {_metric(claim[0])}" if hypothesis["compare"] == "variance" else ""
        shown = [lead] if lead else claim
        answers = [verdict["answer"] for verdict in shown]
        where = " over all settings" if lead else "" if len(shown) == 1 else f" of {len(shown)} settings"
        counted = (
            answers[0]
            if len(answers) == 1
            else ", ".join(f"{answer} in {answers.count(answer)}" for answer in dict.fromkeys(answers))
        )
        said.append(f"{pair}{what}: {visible(counted)}{where}")
    return f"<p>{'; '.join(said)}.</p>" if said else ""


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
        bold=together,
    )


def _sentences(verdicts: Sequence[Row]) -> str:
    """All of them in words, folded: the picture above has the same."""
    lead = [verdict for verdict in verdicts if verdict["setting"] == "all"]
    rest = [verdict for verdict in verdicts if verdict["setting"] != "all"]
    claim = visible(verdicts[0]["hypothesis"]["claim"])
    return f"<details><summary>In words: {claim}</summary>{_list([*lead, *rest])}</details>"


def _list(verdicts: Sequence[Row]) -> str:
    items = (
        f"<li class='{MEANINGS.get(verdict['answer'], '')}'><span>{visible(verdict['sentence'])}</span></li>"
        for verdict in verdicts
    )
    return f"<ul class='notes tight'>{''.join(items)}</ul>"
