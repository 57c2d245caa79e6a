"""What the counts mean: each finding with its evidence and its fix, faults first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from drpo.inspection.detectors.misplaced import MISPLACED, misplaced
from drpo.inspection.detectors.number_format import OUTLIER, SIDES
from drpo.inspection.distributions import NEAR
from drpo.inspection.evidence import INERT, Evidence, said
from drpo.inspection.result import Finding, Severity

#: A 99 % quantile of |π − μ| of this many δ is far beyond it.
FAR = 2.0
_ORDER: dict[Severity, int] = {"fault": 0, "warning": 1, "note": 2}


def findings(evidence: Evidence) -> list[Finding]:
    """All that applies, faults first."""
    found = [finding for write in _ALWAYS for finding in write(evidence)]
    if not any(finding.name in MISPLACED for finding in found):
        found += [finding for write in _OF_SOUND_LOGS for finding in write(evidence)]
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
        f"{found.kinds()}. These tokens are excluded from all figures.",
        "The log-probability of a sampled token is finite and ≤ 0, in nats. Positive values are often probabilities or "
        "negated losses. NaN and infinite values come from padding, from tokens that the engine masked, or from an "
        "overflow. −100, −9999 and −1e9 are common placeholders. Log the trained response tokens only, or a mask.",
    )


def _rounding(evidence: Evidence) -> Iterator[Finding]:
    formats = {side: name for side in SIDES if (name := evidence.counted.grids.format_of(side))}
    if not formats:
        return
    name = next(iter(formats.values()))
    digits = 8 if name == "bfloat16" else 11
    shares = "; ".join(
        f"{evidence.counted.grids.share(side, name):.1%} of the values of {side} lie on the {name} grid"
        for side, name in formats.items()
    )
    sides = " and ".join({"logprob": "π", "behavior_logprob": "μ"}[side] for side in formats)
    yield Finding(
        "rounded",
        "warning",
        f"The log-probabilities of {sides} were rounded to {name}",
        f"{shares}. A value between −2 and −4 nats is then off by up to {2.0 ** (1 - digits):.2g}, one between −8 "
        f"and −16 by up to {2.0 ** (3 - digits):.2g}: ratios differ from 1 by that much even without staleness.",
        "Compute the log-softmax in float32 (logits.float()) and keep the result in float32, on both sides, until it "
        "is logged.",
    )


def _outliers(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.counted.outliers
    if not found.count:
        return
    mass = found.mass / found.total_mass if found.total_mass else 0.0
    yield Finding(
        "outliers",
        "warning",
        f"{said(found.count)} with |log π − log μ| > {OUTLIER:g} nats",
        f"They are {found.count / evidence.tokens:.2g} of all tokens, with {mass:.2g} of the gradient mass |Â r|. The "
        f"largest difference is {found.furthest:.1f} nats ({found.where}).",
        "If the mean |log r| by step is large too, the policy has moved that far: lower the learning rate, or make "
        "fewer updates per step. Otherwise the two sides see different tokens: tokens that the engine masked or forced "
        "(stop tokens, tool output, grammar), text that was tokenized again, or prefixes that were cut differently.",
    )


def _moved(evidence: Evidence) -> Iterator[Finding]:
    """The policy left the trust region, in whatever update: what is left to say where the log has no updates."""
    tail = evidence.shift_tail
    if tail is None or tail < FAR * evidence.delta or any(evidence.counted.updates.drift()):
        return
    steps = evidence.counted.distributions.step_figures()
    by_step = ""
    if len(steps) > 1:
        furthest = max(steps, key=lambda step: step.beyond_delta)
        by_step = (
            f" By step the share beyond δ goes from {steps[0].beyond_delta:.2%} in step {steps[0].step} to "
            f"{steps[-1].beyond_delta:.2%} in step {steps[-1].step}, and is largest in step {furthest.step} "
            f"({furthest.beyond_delta:.2%})."
        )
    yield Finding(
        "moved_far",
        "warning",
        f"The policy moved far beyond δ: 99 % quantile of |π − μ| is {tail:.2g}, {tail / evidence.delta:.2g} δ",
        f"1 % of the tokens have |π − μ| above {tail:.2g}, where δ = {evidence.delta:g}.{by_step}",
        "Lower the learning rate, or make fewer updates per rollout batch (updates_per_step; TRL: "
        "steps_per_generation, num_iterations; verl: ppo_epochs, ppo_mini_batch_size). Log the column update to see "
        "where in a batch it happens.",
    )


def _worse(evidence: Evidence) -> Iterator[Finding]:
    found = {name: str(value) for name, value in evidence.outcome.items()}
    if found.get("kind") == "worse":
        yield Finding(
            "got_worse",
            "warning",
            "The policy got worse in this run",
            " ".join(filter(None, (found.get("sentence"), found.get("reason")))),
            found.get("try_next") or "Look at the responses of the run's report.",
        )


def _inert(evidence: Evidence) -> Iterator[Finding]:
    share = evidence.counted.distributions.near / evidence.tokens
    if not evidence.is_inert:
        return
    same = evidence.counted.distributions.same / evidence.tokens
    bitwise = (
        f"They are equal on {same:.1%}: one was probably copied from the other, or the trainer recomputed μ."
        if same > INERT
        else "The remaining differences are rounding."
    )
    yield Finding(
        "inert",
        "warning",
        "The trust region is inert: r = 1 on all tokens",
        f"log π and log μ agree within {NEAR:g} nats on {share:.2%} of the tokens. {bitwise}",
        "With one update per rollout batch this is expected: all objectives have the same gradient until "
        "updates_per_step is raised. With several updates, log the μ that the rollout engine returned, not a "
        "recomputation.",
    )


def _vacuous(evidence: Evidence) -> Iterator[Finding]:
    if evidence.is_inert:
        return
    furthest = evidence.counted.distributions.largest_shift
    if evidence.delta >= 1:
        title, why = f"δ = {evidence.delta:g} is at least 1", "|π − μ| cannot exceed 1, so no token is ever outside."
    elif evidence.delta > furthest:
        title, why = f"δ = {evidence.delta:g} exceeds the largest |π − μ|", "No token is outside the trust region."
    else:
        return
    names = sorted(o.name for o in evidence.bounded if o.shift_bound == evidence.delta)
    yield Finding(
        "vacuous",
        "warning",
        f"The trust region is vacuous: {title}",
        f"The largest |π − μ| is {furthest:.3g}. {why}",
        "Lower δ to the suggested value. At this δ no token is masked or corrective under "
        f"{', '.join(names) or 'an objective that bounds |π − μ|'}.",
    )


def _masks(evidence: Evidence) -> Iterator[Finding]:
    masks = evidence.reading.masks
    if len(masks) < 2:
        return
    yield Finding(
        "masks",
        "note",
        f"{len(masks)} masks were combined: {', '.join(masks):.300}",
        f"A token is kept if none of them is 0; {said(evidence.reading.masked)} were excluded.",
        f"If one of them does not select trained tokens, name the others: --map mask={masks[0]:.80}.",
    )


def _group_advantages(evidence: Evidence) -> Iterator[Finding]:
    rewards = evidence.reading.rewards
    if not rewards.reward:
        return
    yield Finding(
        "group_advantages",
        "note",
        "The log has no advantages: they were computed from rewards",
        f"Â is {rewards.reward:.80} less its mean over the responses with the same {rewards.group:.80}: "
        f"{sum(rewards.sizes):,} responses in {len(rewards.sizes):,} groups. In {rewards.equal:,} groups all rewards "
        "are equal, so Â = 0.",
        "If the trainer's advantages are others (divided by the standard deviation, whitened over the batch, with a "
        "critic), log them. Shares of tokens depend on the sign of Â alone; shares of gradient mass on its size.",
    )


def _unfinished(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.reading.unfinished:
        return
    yield Finding(
        "unfinished_line",
        "note",
        "The log is still being written: its last line is unfinished",
        f"{'; '.join(evidence.reading.unfinished[:5])} was skipped. The last response may lack its last tokens.",
        "Inspect the log again once it is complete.",
    )


Writer = Callable[[Evidence], Iterator[Finding]]
#: The table of findings: those of any log, and those that a misplaced log-probability would make meaningless.
_ALWAYS: tuple[Writer, ...] = (
    _unusable,
    misplaced,
    _rounding,
    _worse,
    _outliers,
    _inert,
    _vacuous,
    lambda evidence: evidence.counted.no_signal.found(evidence.reading.rewards),
    _masks,
    _group_advantages,
    _unfinished,
)
_OF_SOUND_LOGS: tuple[Writer, ...] = (
    lambda evidence: evidence.counted.updates.drift(),
    lambda evidence: evidence.counted.first_update.found(),
    _moved,
    lambda evidence: evidence.counted.progress.found(),
)
