"""What the counts mean, in words: each finding with its evidence and its fix, the gravest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from drpo.inspection.detectors.misplaced import misplaced
from drpo.inspection.detectors.number_format import OUTLIER, SIDES
from drpo.inspection.distributions import NEAR
from drpo.inspection.evidence import INERT, Evidence, said
from drpo.inspection.result import Finding, Severity

_ORDER: dict[Severity, int] = {"fault": 0, "warning": 1, "note": 2}


def findings(evidence: Evidence) -> list[Finding]:
    """All that applies, faults first."""
    writers: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
        _unusable,
        misplaced,
        _rounding,
        _outliers,
        _inert,
        _vacuous,
        _masks,
        _unfinished,
    )
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
        f"{said(found.tokens)} with {'placeholders for' if only else 'invalid'} log-probabilities",
        f"{found.kinds()}. These tokens are left out of everything below.",
        "A log-probability is ≤ 0, in nats, and finite for a token that was sampled. Positive ones are often "
        "probabilities or negated losses; NaN and infinite ones come from padding, from tokens that the engine masked, "
        "or from an overflow; −100, −9999 or −1e9 are written where there is none. Log kept response tokens only, or a "
        "mask.",
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
        f"{said(found.count)} with log π and log μ more than {OUTLIER:g} nats apart",
        f"They are {found.count / evidence.tokens:.2g} of all tokens, with {mass:.2g} of the gradient mass |Â r|. The "
        f"furthest is {found.furthest:.1f} nats apart ({found.where}).",
        "Either the policy moved that far, which a lower learning rate or fewer updates a step prevents (the mean "
        "|log r| by step is then large too), or the two sides see different tokens: ones that the engine masked or "
        "forced (stop tokens, tool output, grammar), text tokenised again, prefixes cut differently.",
    )


def _inert(evidence: Evidence) -> Iterator[Finding]:
    share = evidence.distributions.near / evidence.tokens
    if not evidence.is_inert:
        return
    same = evidence.distributions.same / evidence.tokens
    bitwise = (
        f"On {same:.1%} of them the two are the same number: one was probably copied from the other, or μ was "
        "recomputed by the trainer."
        if same > INERT
        else "The rest is rounding."
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
    if evidence.is_inert:
        return
    furthest = evidence.distributions.largest_shift
    if evidence.delta >= 1:
        title, why = f"δ = {evidence.delta:g} is no boundary", "|π − μ| cannot exceed 1, so no token is ever held back."
    elif evidence.delta > furthest:
        title, why = f"δ = {evidence.delta:g} is beyond the furthest token", "No token reaches the boundary."
    else:
        return
    at = {str(objective.shift_bound): objective.name for objective in evidence.bounded}
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
        f"A token is kept where none of them is 0; {said(evidence.reading.masked)} were left out.",
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
