"""Refusing to train on behavior log-probabilities that are not the policy's own.

Shapes: ``N`` response tokens of the first update.
"""

from __future__ import annotations

from typing import Any

from drpo.batch import TokenBatch
from drpo.errors import MismatchError
from drpo.mismatch.start_check import examine, explained_mismatch
from drpo.train.config import TrainConfig


def check_mismatch(batch: TokenBatch, record: dict[str, Any], config: TrainConfig) -> str:
    """Compare π and μ of the first update's tokens, where their weights are the same.

    Args:
        batch: ``N`` tokens at the weights that sampled them.
        record: the update's metrics.
        config: whose ``mismatch_limit``, or the precisions of trainer and sampler, say what is accepted.

    Returns:
        what was found, in words.

    Raises:
        MismatchError: the mean of |log π − log μ| exceeds the limit, or the temperatures differ; not with
            ``support_replay=false``, where π and μ are of two distributions by intent.
    """
    ours, theirs = config.precision, config.sampling_precision
    limit = explained_mismatch(ours, theirs) if config.mismatch_limit is None else config.mismatch_limit
    found = examine(batch, limit)
    if not config.support_replay:
        return (
            f"before training {found.summary()}: {config.sampling().truncation} on μ alone (support_replay=false), so "
            "that the check of the first update is off"
        )
    if found.cause is not None:
        raise MismatchError(
            f"before any training, {found.summary()}. {found.cause} {_compared(found.mean, limit, config)}. Both sides "
            f"should use temperature {config.temperature:g} and the same weights{_precisions(config)}."
        )
    routing = record.get("routing_mismatch_tokens")
    routed = "" if routing is None else f"; the routers of sampler and trainer disagree on {routing:.2%} of tokens"
    cut = _truncation(config)
    return (
        f"before training |log π − log μ| is {found.mean:.1e} nats on average, at most {found.max:.1e} (temperature "
        f"{config.temperature:g} on both sides, {cut}; at most {limit:g} on average is accepted){routed}"
    )


def _truncation(config: TrainConfig) -> str:
    kept = config.sampling().truncation
    return f"{kept} with π renormalized over the tokens kept" if kept else "no top-p or top-k"


def _compared(mean: float, limit: float, config: TrainConfig) -> str:
    if mean <= limit:
        return f"The mean is below mismatch_limit={limit:g}, but a temperature difference is not rounding"
    if config.mismatch_limit is None:
        return (
            f"Rounding explains {limit:g} nats on average where the trainer computes in {config.precision} and the "
            f"sampler in {config.sampling_precision}; set mismatch_limit if you expect more"
        )
    return f"That is above mismatch_limit={limit:g}; raise it only if you expect this much"


def _precisions(config: TrainConfig) -> str:
    ours, theirs = config.precision, config.sampling_precision
    return "" if ours == theirs else f"; the rollouts compute in {theirs}, the trainer in {ours}"
