"""Whether the log μ of a first batch is the policy's own, and the likely cause where it is not.

Before the first update π and μ have the same weights, so |log π − log μ| is numerics: rounding where both sides compute
alike, a little more where they differ in precision. What rounding does not explain is a fault.

Shapes: ``N`` response tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_positive
from drpo.diagnostics import quantile
from drpo.divergence import at_least_float32
from drpo.errors import ConfigError, DataError, MismatchError
from drpo.mismatch.temperature import LOGIT, Slope, Temperature

Precision = Literal["fp32", "bf16", "fp16", "fp8"]

#: The largest mean |log π − log μ| (nats) that rounding explains, by the less precise side. Measured means
#: (docs/mismatch.md) are 1.3e-6, 3.7e-3 and 6.7e-3; random models with sharp distributions reach 0.03 in fp8.
EXPLAINED: dict[str, float] = {"fp32": 2e-4, "bf16": 0.05, "fp16": 0.05, "fp8": 0.1}
#: Bins of the temperature test, the finest that has an estimate: number of bins, fewest tokens in one, and in all.
BINS = ((140, 30, 1000), (56, 8, 100), (28, 8, 100))
#: A token further off than this (nats) shows a fault of its own; so many of them must hold one value for a placeholder.
FAR, FEWEST_ALIKE = 0.01, 5
#: Sorted values that agree within this share of the limit are the same values in another order.
SAME_VALUES = 0.1
#: Share of the differences with one sign beyond which they are one-sided.
ONE_SIDED = 0.97


@dataclass(frozen=True, slots=True)
class StartCheck:
    """What :func:`start_check` found.

    ``mean``, ``p95`` and ``max`` are of |log π − log μ| in nats over ``tokens`` tokens; ``limit`` is the largest mean
    that is accepted. ``temperature`` is the estimate of the ratio T of π / T of μ, None where too few tokens tell.
    ``cause`` says what is wrong; None where rounding explains the difference.
    """

    tokens: int
    mean: float
    p95: float
    max: float
    limit: float
    temperature: float | None = None
    cause: str | None = None

    def summary(self) -> str:
        """The figures, in words."""
        return (
            f"|log π − log μ| is {self.mean:.2g} nats on average (95 % below {self.p95:.2g}, at most {self.max:.2g}"
            f", {self.tokens:,} tokens)"
        )


def start_check(
    batch: TokenBatch,
    precision: Precision = "bf16",
    behavior_precision: Precision | None = None,
    limit: float | None = None,
) -> StartCheck:
    """Check that log μ of a first batch is the policy's own, before any update.

    Call it once, with the log-probabilities of the first rollout batch at the weights that sampled it. ``logprobs`` and
    ``behavior_logprobs`` must be taken at the same temperature.

    Args:
        batch: ``N`` tokens at equal weights, several sequences: the whole rollout batch. Two temperatures whose
            difference is below the limit are found in some thousand tokens, not in one micro-batch.
        precision: what the trainer computes in: fp32, bf16, fp16 or fp8.
        behavior_precision: what the sampler computes in; None: as the trainer.
        limit: the largest mean |log π − log μ| in nats; None: what rounding in the two precisions explains
            (``drpo.mismatch.start_check.EXPLAINED``).

    Returns:
        the figures, and the estimated ratio of the temperatures where there are enough tokens.

    Raises:
        MismatchError: the mean exceeds the limit, or the two sides have different temperatures; with the likely cause.
        DataError: the batch is empty, or a log-probability is not finite. ConfigError: a precision is unknown, or the
            limit is not positive.
    """
    found = examine(batch, explained_mismatch(precision, behavior_precision or precision) if limit is None else limit)
    if found.cause is not None:
        raise MismatchError(
            f"before any update {found.summary()}. {found.cause} Both sides need the same weights, the same tokens and "
            f"the same temperature, without top-p or top-k. The limit is {found.limit:g} nats on average; give "
            "precision=, behavior_precision= or limit= if your engines explain more."
        )
    return found


def explained_mismatch(*precisions: str) -> float:
    """The largest mean |log π − log μ| (nats) that rounding explains where the sides compute in ``precisions``.

    Raises:
        ConfigError: one of them is unknown.
    """
    for precision in precisions:
        if precision not in EXPLAINED:
            raise ConfigError(f"precision must be one of {', '.join(EXPLAINED)}, got {precision!r}")
    return max(EXPLAINED[precision] for precision in precisions)


@torch.no_grad()
def examine(batch: TokenBatch, limit: float) -> StartCheck:
    """As :func:`start_check`, for those who word the error themselves: ``cause`` says whether there is one.

    Raises:
        DataError: the batch is empty, or a log-probability is not finite. ConfigError: the limit is not positive.
    """
    if not is_positive(limit):
        raise ConfigError(f"limit must be a finite number of nats > 0, got {limit!r}")
    if not len(batch):
        raise DataError("the batch of a start check has no tokens; give it the first rollout batch")
    ours = at_least_float32(batch.logprobs.detach()).double().cpu()
    theirs = at_least_float32(batch.behavior_logprobs).double().cpu()
    apart = (ours - theirs).abs()
    if not bool(apart.isfinite().all()):
        raise DataError(
            f"{int((~apart.isfinite()).sum())} of {len(apart)} tokens have log-probabilities that are not "
            "finite. Mask such tokens out (from_padded drops them), or fix where they come from."
        )
    sequences = batch.sequence_index().cpu()
    figures = float(apart.mean()), quantile(apart, 0.95), float(apart.max())
    slope = _slope(ours, theirs, sequences)
    causes = [*_temperature(slope)]
    if figures[0] > limit:
        causes = [*_misplaced(ours, theirs, sequences, limit), *causes, *_uneven(ours, theirs, limit)]
    cause = causes[0] if causes else None
    return StartCheck(len(batch), *figures, limit, None if slope is None else slope.estimate.value, cause)


def _slope(ours: torch.Tensor, theirs: torch.Tensor, sequences: torch.Tensor) -> Slope | None:
    for bins, in_bin, fewest in BINS:
        counted = Temperature(replace(LOGIT, bins=bins), in_bin, fewest)
        counted.count(ours.numpy(), theirs.numpy(), sequences.numpy())
        if (slope := counted.slope()) is not None:
            return slope
    return None


def _misplaced(ours: torch.Tensor, theirs: torch.Tensor, sequences: torch.Tensor, limit: float) -> Iterator[str]:
    """Values that stand beside the wrong token, or that are none."""
    for name, values, others in (("behavior_logprobs", theirs, ours), ("logprobs", ours, theirs)):
        far = values[(values - others).abs() > max(FAR, limit)]
        alike = float(far.mode().values) if len(far) else math.nan
        count = int((far == alike).sum())
        if count >= FEWEST_ALIKE and 2 * count > len(far):
            yield f"{count} tokens have {name} = {alike:g} exactly: a placeholder, not a log-probability."
    together = sequences[1:] == sequences[:-1]
    for word, mine, beside in (("next", ours[:-1], theirs[1:]), ("previous", ours[1:], theirs[:-1])):
        if bool(together.any()) and float((mine - beside)[together].abs().mean()) <= limit:
            yield f"behavior_logprobs are shifted by one token: logprobs agree with those of the {word} token."
    if float((ours.sort().values - theirs.sort().values).abs().mean()) <= SAME_VALUES * limit:
        yield "Both sides hold the same values in another order: tokens or sequences are swapped."


def _temperature(slope: Slope | None) -> Iterator[str]:
    if slope is not None and slope.is_fault:
        found = slope.estimate
        yield (
            f"The two sides are at different temperatures: T of π / T of μ is about {found.value:.2f} (95 % "
            f"confidence interval {found.low:.2f} to {found.high:.2f})."
        )


def _uneven(ours: torch.Tensor, theirs: torch.Tensor, limit: float) -> Iterator[str]:
    far = (theirs - ours)[(theirs - ours).abs() > min(limit, FAR)]
    if len(far) >= FEWEST_ALIKE and float((far > 0).double().mean()) >= ONE_SIDED:
        yield (
            "log μ is above log π on nearly all tokens that differ: a top-p, top-k or min-p cut, or the "
            "log-probability of the most likely token instead of the sampled one."
        )
    yield (
        "Likely causes: the sampler applies another temperature or a top-p/top-k cut, its weights are older or "
        "another model's, or the two sides see different tokens or attention masks."
    )
