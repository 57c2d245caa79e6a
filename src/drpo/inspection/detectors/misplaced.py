"""Faults that make |π − μ| meaningless: log π and log μ are not of the same token, not of comparable distributions, or
not log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from drpo.inspection.detectors.placeholders import RARE
from drpo.inspection.evidence import Evidence, said
from drpo.inspection.result import Finding

#: Their names.
MISPLACED = frozenset(
    {
        "unsampled",
        "mask_edge",
        "placeholder",
        "shifted",
        "top_token",
        "truncated",
        "temperature",
        "retokenized",
    }
)


def misplaced(evidence: Evidence) -> Iterator[Finding]:
    """At most one kind, tested in this order, because each makes the later tests meaningless."""
    for write in (
        lambda evidence: evidence.counted.unsampled.found(),
        lambda evidence: evidence.counted.edges.found(),
        _placeholder,
        _shifted,
        _top_token,
        _not_replayed,
        _truncated,
        _temperature,
        lambda evidence: evidence.counted.retokenized.found(),
    ):
        if found := list(write(evidence)):
            yield from found
            return


def _placeholder(evidence: Evidence) -> Iterator[Finding]:
    clauses = evidence.counted.placeholders.evidence(evidence.counted.ones)
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


def _not_replayed(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.counted.truncation
    if not found.alone_below:
        return
    yield Finding(
        "truncated",
        "fault",
        "π is not renormalized over the support that the log records",
        f"{said(found.alone)} have a support of one id (support_size = 1), where π must be 1; on {found.alone_below:,} "
        f"of them it is lower, down to {found.least_alone:.3f}. The test for temperature was skipped.",
        "Take log π over the same support, log π(a) = z(a) − logsumexp of z over it: drpo.token_logprobs(…, support=). "
        "Leave support_size out where π is over the whole vocabulary.",
    )


def _truncated(evidence: Evidence) -> Iterator[Finding]:
    found, ones = evidence.counted.truncation, evidence.counted.ones.mu
    cut = found.cut(ones)
    if cut is None:
        return
    apart = found.above + found.below
    signs = []
    if cut.kind in ("top-p", "min-p"):
        signs.append(
            f"{said(ones.count)} ({ones.count / ones.tokens:.1%}) have μ = 1 exactly and π < 1, "
            f"down to {ones.least:.3f}: no other token was left in their states, as with {cut}"
        )
    if cut.kind == "min-p":
        signs.append(f"no μ lies between {found.largest:.4f} = 1/(1 + min_p) and 1")
    if found.is_one_sided:
        signs.append(
            f"of {said(apart)} where π and μ differ, π is above μ on only {found.above / max(apart, 1):.1%}: "
            "renormalizing raised μ"
        )
    if cut.kind == "top-k":
        signs.append(f"the mean of 1/μ, which is the number of tokens left in a state, is {cut.value:.1f} at any π/μ")
    elif not cut.kind:
        signs.append("which of them it was cannot be told")
    yield Finding(
        "truncated",
        "fault",
        f"μ was cut by {cut} and renormalized, π was not",
        "; ".join(signs) + ". The test for temperature was skipped.",
        "Sample with top_p=1, top_k=-1, min_p=0. Otherwise r is biased below 1, and tokens that were cut off are "
        "never sampled. If you need the cut, record the tokens that were kept and take log π over the same ones "
        "(docs/truncated-sampling.md).",
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
