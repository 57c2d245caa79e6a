"""Faults that make |π − μ| meaningless: log π and log μ are not of the same token, not of comparable distributions, or
not log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from drpo.inspection.detectors.placeholders import RARE
from drpo.inspection.evidence import Evidence, said
from drpo.inspection.result import Finding

#: Their names.
MISPLACED = frozenset({"placeholder", "shifted", "top_token", "truncated", "temperature"})


def misplaced(evidence: Evidence) -> Iterator[Finding]:
    """At most one finding, tested in this order, because each makes the later tests meaningless: placeholders, shift by
    one token, the most likely token's μ, truncation, temperature."""
    for write in (_placeholder, _shifted, _top_token, _truncated, _temperature):
        if found := list(write(evidence)):
            yield from found
            return


def _placeholder(evidence: Evidence) -> Iterator[Finding]:
    clauses = evidence.counted.placeholders.evidence()
    if not clauses:
        return
    yield Finding(
        "placeholder",
        "fault",
        f"Some log-probabilities are placeholders: {clauses[0]}",
        f"{'; '.join(clauses)}. Log-probabilities of sampled tokens have many digits and do not repeat. The tests "
        "for shifted tokens, truncation and temperature were skipped.",
        "Log the value that the engine returned for the sampled token, and NaN or null where it returned none, or "
        "exclude such tokens with a mask. Greedy decoding (temperature near 0, or top_k=1) also gives μ = 1; "
        "importance ratios are then undefined.",
    )


def _top_token(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.counted.top_token
    if not found.found():
        return
    yield Finding(
        "top_token",
        "fault",
        "μ is the probability of the most likely token, not of the sampled one",
        f"π is far below μ on {said(found.below)} and far above it on {found.above:,}. Where it is below, π + μ ≤ 1, "
        f"as for two different tokens. π < {RARE:g} on {said(found.rare_pi)}, μ < {RARE:g} on {found.rare_mu:,}. The "
        "tests for truncation and temperature were skipped.",
        "Log the log-probability of the sampled token. vLLM and SGLang return several per position: select by token "
        "id, not the first or the highest.",
    )


def _shifted(evidence: Evidence) -> Iterator[Finding]:
    lag = evidence.counted.alignment.shifted_by()
    if lag is None:
        return
    own, beside = evidence.counted.alignment.correlation(0), evidence.counted.alignment.correlation(lag)
    yield Finding(
        "shifted",
        "fault",
        f"μ is shifted by one token: log π agrees with the {'next' if lag > 0 else 'previous'} token's log μ",
        f"Correlation of log π with the log μ of the {'next' if lag > 0 else 'previous'} token is {beside:.3f}, "
        f"with its own {own:.3f}. The tests for temperature and truncation were skipped.",
        "Ratios of misaligned tokens are meaningless. The logits at position t predict token t + 1: check where the "
        "label shift is applied, and whether only one side includes the last prompt token or the end token.",
    )


def _truncated(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.counted.truncation
    if not (found.has_nuclei_of_one or found.is_one_sided):
        return
    apart = found.above + found.below
    signs, p = [], found.top_p()
    if found.has_nuclei_of_one:
        signs.append(
            f"{said(found.alone)} ({found.alone / found.tokens:.1%}) have μ = 1 exactly and π < 1, "
            f"down to {p:.3f}: the nucleus held that token alone, as with top-p ≈ {p:.2f}"
        )
    if found.is_one_sided:
        signs.append(
            f"of {said(apart)} where π and μ differ, π is above μ on only {found.above / max(apart, 1):.1%}: "
            "renormalizing raised μ"
        )
    yield Finding(
        "truncated",
        "fault",
        "μ was truncated by top-p (or top-k, min-p) and renormalized, π was not",
        "; ".join(signs) + ". The test for temperature was skipped.",
        "Sample with top_p=1, top_k=-1, min_p=0. Otherwise r is biased below 1, and tokens outside the nucleus are "
        "never sampled. If you need truncation, truncate π the same way before taking its log-probabilities.",
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
        f"π and μ are at different temperatures: T of π / T of μ = {ratio.value:.2f}",
        f"95 % confidence interval {ratio.low:.3f} to {ratio.high:.3f}. This explains {slope.explained:.0%} of the "
        f"mean |logit μ − logit π|. If π is at temperature 1, μ is at {1 / ratio.value:.2f}.",
        "Divide the logits by the sampling temperature on both sides before the log-softmax, and let the engine return "
        "log-probabilities after temperature (vLLM: logprobs_mode=processed_logprobs).",
    )
