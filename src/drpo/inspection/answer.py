"""The answer in one sentence: does the trust region act, and can the numbers be trusted?"""

from __future__ import annotations

from collections.abc import Sequence

from drpo.inspection.result import Answer, Finding, Verdict

#: Objectives that are shown with the run's own: the first four of them that are not it.
COMMON = ("drpo", "dppo_tv", "grpo", "spo", "gspo")


def answer(findings: Sequence[Finding], delta: float, beyond_delta: float, verdict: Verdict) -> Answer:
    """The answer that ``findings`` (faults first) leave.

    Args:
        findings: of the whole log.
        delta: the bound on |π − μ|, a probability.
        beyond_delta: the share of tokens with a larger one.
        verdict: of the objective that is asked about.
    """
    by_name = {finding.name: finding for finding in findings}
    if findings and findings[0].severity == "fault":
        others = sum(finding.severity == "fault" for finding in findings) - 1
        more = f" (and {others} more)" if others else ""
        return Answer("untrusted", f"The numbers cannot be trusted: {_clause(findings[0].title)}{more}.")
    if "inert" in by_name:
        return Answer("inert", "The trust region is inert: r = 1 on all tokens, so all objectives are the same.")
    if "vacuous" in by_name:
        return Answer("vacuous", f"The trust region is vacuous: no token has |π − μ| above δ = {delta:g}.")
    beyond = f"The trust region acts: {_percent(beyond_delta)} of the tokens have |π − μ| above δ = {delta:g}"
    if not any(verdict.mass):
        return Answer("acts", f"{beyond}, but no token has an advantage, so that there is no gradient.")
    return Answer("acts", f"{beyond}, and {verdict.objective} changes {_percent(verdict.changed)} of the gradient.")


def shown_first(names: Sequence[str], own: str) -> list[str]:
    """The run's ``own`` objective, then four of the most used ones, of those that were evaluated (``names``)."""
    others = [name for name in COMMON if name != own][:4]
    return [name for name in (own, *others) if name in names]


def _clause(title: str) -> str:
    """A title as the second half of a sentence, unless it begins with a symbol or an abbreviation."""
    return title[0].lower() + title[1:] if title[:2].istitle() else title


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
