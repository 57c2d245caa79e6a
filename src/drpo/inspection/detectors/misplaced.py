"""Findings that make |π − μ| a measure of a fault instead of the policy's change.

log π and log μ are then not of one token, not of one distribution, or no log-probabilities at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from drpo.inspection.detectors.placeholders import RARE
from drpo.inspection.evidence import Evidence, said
from drpo.inspection.result import Finding

#: Their names.
MISPLACED = frozenset({"placeholder", "shifted", "top_token", "truncated", "temperature"})


def misplaced(evidence: Evidence) -> Iterator[Finding]:
    """At most one: filled in, shifted, another token's, truncated, at another temperature.

    Each makes the tests after it meaningless.
    """
    for write in (_placeholder, _shifted, _top_token, _truncated, _temperature):
        if found := list(write(evidence)):
            yield from found
            return


def _placeholder(evidence: Evidence) -> Iterator[Finding]:
    clauses = evidence.placeholders.evidence()
    if not clauses:
        return
    yield Finding(
        "placeholder",
        "fault",
        f"Some log-probabilities are placeholders: {clauses[0]}",
        f"{'; '.join(clauses)}. A sampled token's log-probability has many digits and does not repeat. Shift, "
        "truncation and temperature were not looked for.",
        "Log what the engine returned for the sampled token, and NaN or null where there is nothing; or leave such "
        "tokens out with a mask. Greedy decoding (temperature near 0, or top-k 1) makes μ = 1 as well: no "
        "importance ratio exists there.",
    )


def _top_token(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.top_token
    if not found.found():
        return
    yield Finding(
        "top_token",
        "fault",
        "μ is of the most likely token, not of the sampled one",
        f"π is far below μ on {said(found.below)} and far above it on {found.above:,}; there π + μ ≤ 1, as for two "
        f"different tokens. π < {RARE:g} on {said(found.rare_pi)}, μ on {found.rare_mu:,}. Truncation and "
        "temperature were not looked for.",
        "Take the log-probability of the token that was sampled. vLLM and SGLang return several a position: pick by "
        "token id, not the first or the highest.",
    )


def _shifted(evidence: Evidence) -> Iterator[Finding]:
    lag = evidence.alignment.shifted_by()
    if lag is None:
        return
    own, beside = evidence.alignment.correlation(0), evidence.alignment.correlation(lag)
    yield Finding(
        "shifted",
        "fault",
        f"μ is shifted by one token: log π agrees with the {'next' if lag > 0 else 'previous'} token's log μ",
        f"Correlation of log π with the log μ of the {'next' if lag > 0 else 'previous'} token is {beside:.3f}, "
        f"with its own {own:.3f}. Temperature and truncation were not looked for.",
        "Every ratio is noise. The logits at position t predict token t + 1: check where the label shift is applied, "
        "and whether one side counts the last prompt token or the end token and the other does not.",
    )


def _truncated(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.truncation
    if not (found.has_nuclei_of_one or found.is_one_sided):
        return
    apart = found.above + found.below
    signs, p = [], found.top_p()
    if found.has_nuclei_of_one:
        signs.append(
            f"{said(found.alone)} ({found.alone / found.tokens:.1%}) have μ = 1 exactly where π is less, "
            f"down to {p:.3f}: the whole nucleus was that token, as with top-p ≈ {p:.2f}"
        )
    if found.is_one_sided:
        signs.append(
            f"of {said(apart)} with π and μ apart, π is above μ on {found.above / max(apart, 1):.1%} only: "
            "μ was raised by renormalizing"
        )
    yield Finding(
        "truncated",
        "fault",
        "μ was cut by top-p (or top-k, min-p) and renormalized, π was not",
        "; ".join(signs) + ". A temperature mismatch was not looked for.",
        "Sample with top_p=1, top_k=-1, min_p=0. Otherwise r is biased below 1, and tokens outside the nucleus can "
        "never be sampled. If you must cut, apply the same cut to π before taking its log-probabilities.",
    )


def _temperature(evidence: Evidence) -> Iterator[Finding]:
    slope = evidence.slope
    if slope is None or evidence.is_inert:
        return
    if not slope.is_fault:
        return
    ratio = slope.estimate
    yield Finding(
        "temperature",
        "fault",
        f"μ is at another temperature than π: T of π / T of μ = {ratio.value:.2f}",
        f"95 % confidence interval {ratio.low:.3f} to {ratio.high:.3f}. This explains {slope.explained:.0%} of the "
        f"mean |logit μ − logit π|. If π is at temperature 1, μ is at {1 / ratio.value:.2f}.",
        "Divide the logits by the sampling temperature on both sides before the log-softmax, and let the engine return "
        "log-probabilities after temperature (vLLM: logprobs_mode=processed_logprobs).",
    )
