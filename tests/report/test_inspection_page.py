"""The page of `drpo inspect`: well formed, harmless, and complete."""

from __future__ import annotations

import dataclasses
import re

from drpo.inspection.result import (
    AffectedToken,
    Answer,
    Finding,
    Inspection,
    MuBin,
    StepFigures,
    SuggestedDelta,
    UpdateFigures,
    Verdict,
)
from drpo.mismatch.estimate import Estimate
from drpo.report.inspection.agreement import clusters
from drpo.report.inspection.page import build_inspection_page
from drpo.report.inspection.words import one_in
from support.page_check import check

HOSTILE = "</td><script>alert(1)</script>\u202e\x1b[31m"


def verdict(name: str, shares: list[float]) -> Verdict:
    return Verdict(name, "delta=0.15", shares, shares, 0.25, shares, shares, 0.2, None, [0.1, None, 0.3], 0.0)


def inspection(**changes: object) -> Inspection:
    found = Inspection(
        files=["log.parquet"],
        answer=Answer("inert", "The trust region is inert."),
        objective="drpo",
        tokens=1000,
        sequences=20,
        unusable_tokens=3,
        delta=0.15,
        findings=[Finding("inert", "warning", "The trust region is inert", "r = 1 on 99.95%", "Anchor on μ")],
        suggested_delta=SuggestedDelta(0.12, "99 % stay within 0.12"),
        figures=dict.fromkeys(
            (
                "ratio",
                "ratio_min",
                "ratio_max",
                "shift",
                "shift_max",
                "beyond_delta",
                "diverging_share",
                "mismatch",
                "mismatch_max",
                "rare_share",
            ),
            0.0625,
        ),
        mu_edges=[0.0, 0.01, 0.1, 1.0],
        mu_counts=[100, 0, 900],
        shift_edges=[0.0, 0.01, 0.1, 1.0],
        shift_counts=[900, 100, 0],
        mu_bins=[
            MuBin(0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 0.01, 0.02, 0.03, 0.0),
            MuBin(0.01, 1.0, 0.9, None, None, None, None, None, None, None),
        ],
        verdicts=[verdict("drpo", [0, 0.4, 0.3, 0.2, 0.1]), verdict("ppo", [0.125, 0, 0.875, 0, 0])],
        agreement=[[1.0, 0.4], [0.4, 1.0]],
        not_evaluated={"minirl": "needs proximal_logprobs"},
        steps=[StepFigures(step, 300, 0.01, 0.1, 0.02) for step in (1, 2, 3)],
        affected=[AffectedToken("log.parquet", 17, 2, "42", " hello", "before", "after", 0.5, 0.75, 1.0, -0.5, 2.25)],
        reference="drpo",
        temperature=Estimate(1.25, 1.2, 1.3),
    )
    return dataclasses.replace(found, **changes)


def words(page: str) -> str:
    return re.sub(r"<[^>]*>", " ", page)


def test_it_says_what_was_found() -> None:
    page = check(build_inspection_page(inspection()))
    said = words(page)
    for part in (
        "The trust region is inert",
        "Anchor on μ",
        "Suggested δ: 0.12",
        "1.250 (95 % confidence interval 1.200 to 1.300)",
        "12.5 %",
        "minirl needs proximal_logprobs",
        "before hello after",
        "step 2, row 17",
        "3 tokens with invalid",
    ):
        assert " ".join(part.split()) in " ".join(said.split()), part
    assert page == build_inspection_page(inspection())


def test_what_a_model_wrote_stays_text() -> None:
    hostile = AffectedToken(HOSTILE, 1, None, None, HOSTILE, HOSTILE, HOSTILE, 0.5, 0.5, 1.0, 0.5, 0.1)
    finding = Finding("x", "fault", HOSTILE, HOSTILE, HOSTILE)
    page = check(
        build_inspection_page(
            inspection(
                files=[HOSTILE] * 9,
                affected=[hostile],
                findings=[finding],
                not_evaluated={HOSTILE: HOSTILE},
                verdicts=[dataclasses.replace(verdict(HOSTILE, [0, 0, 1, 0, 0]), parameters=HOSTILE)],
                agreement=[[1.0]],
            )
        )
    )
    assert page.count("<script") == 1 and "\u202e" not in page and "\x1b" not in page
    assert "6 more" in words(page)


def test_a_log_without_steps_text_or_findings() -> None:
    page = check(
        build_inspection_page(
            inspection(
                findings=[],
                steps=[],
                affected=[],
                not_evaluated={},
                temperature=None,
                suggested_delta=SuggestedDelta(None, "too few"),
                figures={**inspection().figures, "ratio": float("nan"), "ratio_max": float("inf")},
            )
        )
    )
    assert "No fault found" in page and "By step" not in page and "Most affected" not in page


def test_the_answer_comes_first_and_details_last() -> None:
    updates = [UpdateFigures(update, 300, 0.01 * update, 0.1, 0.02) for update in (0, 1)]
    page = check(build_inspection_page(inspection(updates=updates)))
    names = re.findall(r"<section id='([^']*)'", page)
    assert names == [
        "findings",
        "objective",
        "figures",
        "distributions",
        "by-step",
        "by-update",
        "by-mu",
        "objectives",
        "agreement",
        "most-affected-tokens",
    ]
    assert page.index("<h1>The trust region is inert.</h1>") < page.index("<section")
    assert re.findall(r"<a href='#([^']*)'>", page) == names
    assert "from 0 to 0.01" in words(page)


def test_five_findings_are_shown_and_the_others_are_folded() -> None:
    found = [Finding(f"x{i}", "note", f"Title {i}.", "", "") for i in range(7)]
    page = check(build_inspection_page(inspection(findings=found)))
    shown, _, rest = page.partition("<summary>2 more findings</summary>")
    assert "Title 4." in shown and "Title 5." not in shown and "Title 6." in rest


def test_numbers_of_a_finding_do_not_break_at_their_exponent() -> None:
    said = "4.1e-05 nats in runs/lr-1e-05/log.jsonl and 1e-05/log, mass 1.8e-07, 8.3e-7)."
    page = build_inspection_page(inspection(findings=[Finding("stale", "warning", "3e-10 nats", said, "fix")]))
    assert "4.1e−5 nats in runs/lr-1e-05/log.jsonl and 1e-05/log, mass 1.8e−7, 8.3e−7)." in page
    assert "<b>3e−10 nats</b>" in page


def test_an_objective_that_changes_much_leaves_room_for_the_others() -> None:
    """Of objectives that change the gradient by 2 % and by 3,000 %, both have a tick of their size."""
    verdicts = [
        dataclasses.replace(verdict(name, [0, 0, 1, 0, 0]), changed_by_step=[size] * 3)
        for name, size in (("drpo", 0.02), ("luspo", 30.0))
    ]
    page = build_inspection_page(inspection(verdicts=verdicts))
    (chart,) = (part for part in page.split("<figure")[1:] if "Gradient change" in part)
    ticks = re.findall(r"text-anchor='end'>([^<]*)<", chart)
    assert {"2 %", "5 %", "10 %"} & set(ticks) and "1,000 %" in ticks, ticks


def test_figures_are_judged_in_words() -> None:
    said = words(build_inspection_page(inspection(figures={**inspection().figures, "beyond_delta": 0.0248})))
    assert "2.48 %" in said and "1 token in 40.3; many" in said
    assert "41.7 % of δ" in said  # 0.0625 of 0.15
    for value, expected in ((0.0, "no token"), (0.5, "1 token in 2"), (1.0, "every token"), (None, "unknown")):
        assert one_in(value) == expected


def test_objectives_that_agree_are_told_in_a_sentence() -> None:
    shares = [[1.0, 0.995, 0.3], [0.995, 1.0, 0.98], [0.3, 0.98, 1.0]]
    assert clusters(shares) == [[0, 1], [2]]
    found = inspection(
        verdicts=[verdict(name, [0, 0, 1, 0, 0]) for name in ("drpo", "dppo_tv", "spo")], agreement=shares
    )
    page = check(build_inspection_page(found))
    said = " ".join(words(page).split())
    assert "drpo and dppo_tv agree on 99.5 % of the tokens. drpo and spo agree least, on 30 %." in said
    assert "title='drpo and spo: 30 %'" in page and page.count("data-v='0.995'") == 2
