"""The answer in one sentence, and the gate that a script sets."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from drpo.errors import ConfigError
from drpo.inspection.answer import answer, shown_first
from drpo.inspection.gate import Check, Gate
from drpo.inspection.inspect import FIGURES
from drpo.inspection.result import Finding, Inspection, SuggestedDelta, Verdict
from drpo.report.inspection.junit import junit
from drpo.report.inspection.markdown import markdown

DRPO = Verdict(
    "drpo",
    "delta=0.15",
    [0, 0.1, 0.7, 0.15, 0.05],
    [0.0, 0.0, 1.0, 0.0, 0.0],
    0.0551,
    [0] * 5,
    [0] * 5,
    None,
    None,
    [],
    0.0,
)
FAULT = Finding("shifted", "fault", "Rows are off by one", "correlation 0.99", "Shift μ")
INERT = Finding("inert", "warning", "The trust region is inert", "r = 1", "Log μ")
VACUOUS = Finding("vacuous", "warning", "The trust region is vacuous: δ = 2 is at least 1", "none", "Lower δ")
NOTE = Finding("masks", "note", "2 masks were combined", "a and b", "Name one")


def found(*findings: Finding, **figures: float) -> Inspection:
    values = dict.fromkeys(FIGURES, 0.0) | figures
    return Inspection(
        files=["log.jsonl"],
        answer=answer(findings, 0.15, values["beyond_delta"], DRPO),
        objective="drpo",
        tokens=1000,
        sequences=10,
        unusable_tokens=0,
        delta=0.15,
        findings=list(findings),
        suggested_delta=SuggestedDelta(0.2, "99 %"),
        figures=values,
        mu_edges=[],
        mu_counts=[],
        shift_edges=[],
        shift_counts=[],
        mu_bins=[],
        verdicts=[DRPO],
        agreement=[[1.0]],
        not_evaluated={},
        steps=[],
        affected=[],
        reference="drpo",
    )


@pytest.mark.parametrize(
    ("findings", "state", "sentence"),
    [
        ([FAULT, INERT], "untrusted", "The numbers cannot be trusted: rows are off by one."),
        ([FAULT, replace(FAULT, name="b")], "untrusted", "rows are off by one (and 1 more)."),
        ([replace(FAULT, title="μ is 1")], "untrusted", "The numbers cannot be trusted: μ is 1."),
        ([INERT, VACUOUS], "inert", "The trust region is inert: r = 1 on all tokens, so all objectives are the same."),
        ([VACUOUS], "vacuous", "The trust region is vacuous: no token has |π − μ| above δ = 0.15."),
        ([NOTE], "acts", "The trust region acts: 1.74 % of the tokens have |π − μ| above δ = 0.15, and drpo changes "),
        ([], "acts", "changes 5.51 % of the gradient."),
    ],
)
def test_the_answer(findings: list[Finding], state: str, sentence: str) -> None:
    given = found(*findings, beyond_delta=0.01739).answer
    assert given.state == state and sentence in given.sentence


def test_a_log_without_any_gradient() -> None:
    without = replace(DRPO, mass=[0.0] * 5, changed=0.0)
    assert "no token has an advantage, so that there is no gradient" in answer([], 0.15, 0.1, without).sentence


def test_the_run_s_own_objective_and_four_others_are_shown() -> None:
    names = ["surrogate", "ppo", "grpo", "spo", "dppo_tv", "drpo", "gspo", "vaco"]
    assert shown_first(names, "vaco") == ["vaco", "drpo", "dppo_tv", "grpo", "spo"]
    assert shown_first(names, "drpo") == ["drpo", "dppo_tv", "grpo", "spo", "gspo"]
    assert shown_first(["ppo"], "ppo") == ["ppo"]


@pytest.mark.parametrize(
    ("fail_on", "limits", "failing", "passing"),
    [
        (None, [], [], []),
        ("fault", [], [], ["findings"]),
        ("warning", [], ["inert"], []),
        (None, ["beyond_delta=0.05", "shift_max=0.3"], ["beyond_delta"], ["shift_max"]),
        ("fault", ["beyond_delta=0.0812"], [], ["findings", "beyond_delta"]),
        (None, ["ratio_max=1"], ["ratio_max"], []),  # not a number: nothing was shown to be within it
    ],
)
def test_the_gate(fail_on: str | None, limits: list[str], failing: list[str], passing: list[str]) -> None:
    log = found(INERT, NOTE, beyond_delta=0.0812, shift_max=0.3, ratio_max=float("nan"))
    checks = Gate.of(fail_on, limits, FIGURES).checks(log)
    assert [check.name for check in checks if check.failure] == failing
    assert [check.name for check in checks if not check.failure] == passing


@pytest.mark.parametrize(
    ("fail_on", "limit", "words"),
    [
        ("error", "shift=1", "must be fault or warning"),
        (None, "beyond=0.1", "no figure 'beyond'"),
        (None, "beyond_delta", "must be a number"),
        (None, "beyond_delta=", "must be a number"),
        (None, "beyond_delta=nan", "must be a number"),
    ],
)
def test_what_no_gate_can_be(fail_on: str | None, limit: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Gate.of(fail_on, [limit], FIGURES)


HOSTILE = replace(FAULT, title="column <script>alert(1)</script> | [x](y)\x1b[31m\n# heading")


def test_markdown_is_not_driven_by_the_log() -> None:
    text = markdown(found(HOSTILE), [Check(name="findings"), Check(name="shift", failure="shift is 1 | 2")])
    assert "<script>" not in text and "\x1b" not in text and "\n# heading" not in text and "- failed `shift`" in text
    assert "| `drpo` | 0 % | 10 % | 5 % | 5.51 % |" in text


def test_junit_is_well_formed_and_counts() -> None:
    log = found(HOSTILE)
    suite = ET.fromstring(junit(log, Gate.of("fault", ["shift=1"], FIGURES).checks(log)))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None] == ["shifted"]
    (readable,) = ET.fromstring(junit(log, [])).iter("testcase")
    assert readable.get("name") == "readable"
