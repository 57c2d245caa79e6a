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
    Verdict,
)
from drpo.mismatch.estimate import Estimate
from drpo.report.inspection.page import build_inspection_page
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
    assert "4 more" in words(page)


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
