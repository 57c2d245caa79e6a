"""docs/which-objective.md: the family's verdicts, and the figure of the area and of its differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from drpo.lab.statistics import Estimate, MeanDifference
from drpo.lab.study import Hypothesis, load_study
from drpo.lab.verdict import Verdict
from drpo.report.figures.area import Arm, Claim, area_figure
from tools.docs import second_round

CLAIM = Hypothesis(claim="Tuned, DRPO ends higher than DPPO.", ours="drpo", theirs="dppo_tv", margin=0.02)
FOUND = MeanDifference(value=0.004, low=-0.003, high=0.011, p=0.3, error=0.0035, freedom=39.0)
VERDICT = Verdict(
    CLAIM, "dense", 40, "final_accuracy", found=FOUND, detectable=Estimate(0.017, 0.01, 0.03), adjusted_p=0.6,
    adjusted_equivalence=0.003, answer="equivalent",
)  # fmt: skip


def test_the_family_is_the_registered_one() -> None:
    """Six comparisons of two studies, each of which counts the other's; every arm of a claim has a name."""
    claims = [claim for _, claim, _ in second_round.family()]
    assert len(claims) == 6
    for name, other in (second_round.FAMILY, second_round.FAMILY[::-1]):
        counted = load_study(other)[1].family[name]
        assert counted == sum(study == name for study, _, _ in second_round.family())
    assert {arm for claim in claims for arm in (claim.ours, claim.theirs)} <= set(second_round.NAMES)
    assert {claim.margin for claim in claims} == {0.02, None}


@pytest.mark.parametrize(
    ("verdict", "cells"),
    [
        (VERDICT, ["**equivalent within ±0.02**", "+0.004 (-0.003 to +0.011)", "0.003", "0.017", "40"]),
        (
            replace(VERDICT, answer="undecided", adjusted_equivalence=0.2),
            ["**undecided**", "+0.004 (-0.003 to +0.011)", "0.6", "0.017", "40"],
        ),
        (None, ["not run yet", None, None, None, None]),
        (replace(VERDICT, found=None, answer="not judged"), ["not run yet", None, None, None, None]),
    ],
    ids=["equivalent", "undecided", "missing", "unfinished"],
)
def test_a_verdict_has_the_p_value_of_its_answer(verdict: Verdict | None, cells: list[str | None]) -> None:
    assert second_round.cells(verdict) == cells


def test_a_claim_of_equivalence_has_its_p_value_also_while_undecided() -> None:
    claim = Hypothesis(claim="Alike.", ours="a", theirs="b", margin=0.02, test="equivalence")
    undecided = replace(
        VERDICT, hypothesis=claim, answer="undecided", adjusted_equivalence=0.2, adjusted_p=float("nan")
    )
    assert second_round.cells(undecided)[2] == "0.2"


def test_the_figure_has_a_line_an_arm_and_a_row_a_claim() -> None:
    blocks = [(1e-5, 0.5), (1e-4, 0.6), (4e-4, 0.1)]
    claims = [
        Claim("A − B", "better", (0.03, 0.01, 0.05)),
        Claim("C − D", "undecided", (0.0, -0.03, 0.03)),
        Claim("E − F", "not run yet"),
    ]
    figure = area_figure({"DRPO": Arm("drpo", blocks[:2], blocks)}, 0.42, claims, margin=0.02)
    left, right = figure.axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in left.lines}
    assert lines["DRPO"] == [0.5, 0.6] and [0.42, 0.42] in lines.values()
    said = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    assert {"A − B", "E − F", "better", "undecided", "not run yet", "gray: within ±0.02"} <= set(said)
    assert left.xaxis.get_major_formatter()(1e-4) == "1e−4"
    marks = [line for line in right.lines if line.get_marker() == "o"]
    assert [np.asarray(line.get_xdata()).item() for line in marks] == [0.03, 0.0]
    assert [line.get_markerfacecolor() == line.get_color() for line in marks] == [True, False]  # undecided: a ring
    assert right.get_ylim()[0] > right.get_ylim()[1]  # the first claim on top
