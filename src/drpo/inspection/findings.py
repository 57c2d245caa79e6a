"""What the counts mean, in words: each finding with its evidence and its fix, the gravest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from drpo.inspection.alignment import Alignment
from drpo.inspection.distributions import NEAR, Distributions
from drpo.inspection.placeholders import RARE, Placeholders, TopToken
from drpo.inspection.precision import OUTLIER, SIDES, Grids, Outliers, Unusable
from drpo.inspection.reading import Reading
from drpo.inspection.result import Finding, Severity
from drpo.inspection.truncation import Truncation
from drpo.mismatch.temperature import Slope
from drpo.objectives import Objective

#: Share of the tokens with r = 1 that makes a trust region inert.
INERT = 0.999

_ORDER: dict[Severity, int] = {"fault": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the findings are drawn from. ``bounded`` are the objectives with a ``delta``."""

    tokens: int
    delta: float
    distributions: Distributions
    alignment: Alignment
    slope: Slope | None
    truncation: Truncation
    placeholders: Placeholders
    top_token: TopToken
    grids: Grids
    outliers: Outliers
    unusable: Unusable
    bounded: Sequence[Objective]
    reading: Reading


#: Findings that make |π − μ| a measure of the fault instead of the policy's change.
MISPLACED = frozenset({"placeholder", "shifted", "top_token", "truncated", "temperature"})


def findings(evidence: Evidence) -> list[Finding]:
    """All that applies, faults first."""
    writers: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
        _unusable, _misplaced_mu, _rounding, _outliers, _inert, _vacuous, _masks, _unfinished,
    )  # fmt: skip
    found = [finding for write in writers for finding in write(evidence)]
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def _unusable(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.unusable
    if not found.counts:
        return
    only = found.placeholders == found.tokens
    yield Finding(
        "unusable_logprobs",
        "fault",
        f"{_tokens(found.tokens)} with {'placeholders for' if only else 'invalid'} log-probabilities",
        f"{found.kinds()}. These tokens are left out of everything below.",
        "A log-probability is ≤ 0, in nats, and finite for a token that was sampled. Positive ones are often "
        "probabilities or negated losses; NaN and infinite ones come from padding, from tokens that the engine masked, "
        "or from an overflow; −100, −9999 or −1e9 are written where there is none. Log kept response tokens only, or a "
        "mask.",
    )


def _misplaced_mu(evidence: Evidence) -> Iterator[Finding]:
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
        f"π is far below μ on {_tokens(found.below)} and far above it on {found.above:,}; there π + μ ≤ 1, as for two "
        f"different tokens. π < {RARE:g} on {_tokens(found.rare_pi)}, μ on {found.rare_mu:,}. Truncation and "
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
        signs.append(f"{_tokens(found.alone)} ({found.alone / found.tokens:.1%}) have μ = 1 exactly where π is less, "
                     f"down to {p:.3f}: the whole nucleus was that token, as with top-p ≈ {p:.2f}")
    if found.is_one_sided:
        signs.append(f"of {_tokens(apart)} with π and μ apart, π is above μ on {found.above / max(apart, 1):.1%} only: "
                     "μ was raised by renormalising")
    yield Finding(
        "truncated",
        "fault",
        "μ was cut by top-p (or top-k, min-p) and renormalised, π was not",
        "; ".join(signs) + ". A temperature mismatch was not looked for.",
        "Sample with top_p=1, top_k=-1, min_p=0. Otherwise r is biased below 1, and tokens outside the nucleus can "
        "never be sampled. If you must cut, apply the same cut to π before taking its log-probabilities.",
    )


def _temperature(evidence: Evidence) -> Iterator[Finding]:
    slope = evidence.slope
    if slope is None or evidence.distributions.near >= INERT * evidence.tokens:
        return
    if not slope.is_fault:
        return
    ratio = slope.estimate
    yield Finding(
        "temperature",
        "fault",
        f"μ is at another temperature than π: T of π / T of μ = {ratio.value:.2f}",
        f"95 % interval {ratio.low:.3f} to {ratio.high:.3f}; that alone explains {slope.explained:.0%} of the "
        f"difference. With π at temperature 1 the log-probabilities of the sampler are at {1 / ratio.value:.2f}.",
        "Divide the logits by the sampling temperature on both sides before the log-softmax, and let the engine return "
        "log-probabilities after temperature (vLLM: logprobs_mode=processed_logprobs).",
    )


def _rounding(evidence: Evidence) -> Iterator[Finding]:
    formats = {side: name for side in SIDES if (name := evidence.grids.format_of(side))}
    if not formats:
        return
    name = next(iter(formats.values()))
    digits = 8 if name == "bfloat16" else 11
    shares = "; ".join(
        f"{evidence.grids.share(side, name):.1%} of the values of {side} lie on the {name} grid"
        for side, name in formats.items()
    )
    sides = " and ".join({"logprob": "π", "behavior_logprob": "μ"}[side] for side in formats)
    yield Finding(
        "rounded",
        "warning",
        f"The log-probabilities of {sides} were rounded to {name}",
        f"{shares}. A value between −2 and −4 nats is then off by up to {2.0 ** (1 - digits):.2g}, one between −8 "
        f"and −16 by up to {2.0 ** (3 - digits):.2g}: ratios differ from 1 by that much without any staleness.",
        "Take the log-softmax in float32 (logits.float()) and keep its result in float32, on both sides, all the way "
        "to the log.",
    )


def _outliers(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.outliers
    if not found.count:
        return
    mass = found.mass / found.total_mass if found.total_mass else 0.0
    yield Finding(
        "outliers",
        "warning",
        f"{_tokens(found.count)} with log π and log μ more than {OUTLIER:g} nats apart",
        f"They are {found.count / evidence.tokens:.2g} of all tokens, with {mass:.2g} of the gradient mass |Â r|. The "
        f"furthest is {found.furthest:.1f} nats apart ({found.where}).",
        "Either the policy moved that far, which a lower learning rate or fewer updates a step prevents (the mean "
        "|log r| by step is then large too), or the two sides see different tokens: ones that the engine masked or "
        "forced (stop tokens, tool output, grammar), text tokenised again, prefixes cut differently.",
    )


def _inert(evidence: Evidence) -> Iterator[Finding]:
    share = evidence.distributions.near / evidence.tokens
    if share < INERT:
        return
    same = evidence.distributions.same / evidence.tokens
    bitwise = (
        f"On {same:.1%} of them the two are the same number: one was probably copied from the other, or μ was "
        "recomputed by the trainer." if same > INERT else "The rest is rounding."
    )
    yield Finding(
        "inert",
        "warning",
        "The trust region is inert: r = 1 throughout",
        f"On {share:.2%} of the tokens log π and log μ agree within {NEAR:g} nats. {bitwise}",
        "With one optimizer step a rollout batch that is as it should be, and every objective is the same; raise "
        "updates_per_step to see a difference. Otherwise anchor on the log-probabilities that the rollout engine "
        "returned, not on a recomputation.",
    )


def _vacuous(evidence: Evidence) -> Iterator[Finding]:
    if evidence.distributions.near >= INERT * evidence.tokens:
        return
    furthest = evidence.distributions.largest_shift
    if evidence.delta >= 1:
        title, why = f"δ = {evidence.delta:g} is no boundary", "|π − μ| cannot exceed 1, so no token is ever held back."
    elif evidence.delta > furthest:
        title, why = f"δ = {evidence.delta:g} is beyond the furthest token", "No token reaches the boundary."
    else:
        return
    at = {str(getattr(objective, "delta", None)): objective.name for objective in evidence.bounded}
    yield Finding(
        "vacuous",
        "warning",
        f"The trust region is vacuous: {title}",
        f"The largest |π − μ| of all tokens is {furthest:.3g}. {why}",
        "Lower δ towards the suggested one, or accept that this run is the plain surrogate with, at most, a slight "
        f"damping ({', '.join(sorted(at.values())) or 'no objective here'} would hold nothing back).",
    )


def _masks(evidence: Evidence) -> Iterator[Finding]:
    masks = evidence.reading.masks
    if len(masks) < 2:
        return
    yield Finding(
        "masks",
        "note",
        f"{len(masks)} masks were combined: {', '.join(masks):.300}",
        f"A token is kept where none of them is 0; {_tokens(evidence.reading.masked)} were left out.",
        f"If one of them does not say which tokens are trained on, name the right ones: --map mask={masks[0]:.80}.",
    )


def _unfinished(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.reading.unfinished:
        return
    yield Finding(
        "unfinished_line",
        "note",
        "The log is still being written: its last line is unfinished",
        f"{'; '.join(evidence.reading.unfinished[:5])}: passed over. The last response may lack its last tokens.",
        "Inspect the log again once it is complete.",
    )


def _tokens(count: int) -> str:
    return f"{count:,} token{'' if count == 1 else 's'}"
