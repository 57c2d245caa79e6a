"""One optimizer step over one mini-batch of responses, and what it measured.

Shapes: ``N`` response tokens of the mini-batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from drpo.aggregation import aggregate
from drpo.batch import TokenBatch
from drpo.diagnostics import diagnose, quantile
from drpo.divergence import at_least_float32, binary_tv
from drpo.errors import TrainingError
from drpo.metrics import Metric
from drpo.objectives import Objective, gradient_weight
from drpo.run_directory import SHIFT_EDGES, WEIGHT_EDGES
from drpo.train.config import TrainConfig
from drpo.train.policy import Policy, Sequences, micro_batches
from drpo.train.rollout import Sample


def update_policy(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    samples: Sequence[Sample],
    advantages: Sequence[float],
    config: TrainConfig,
    on_tokens: Callable[[Sequence[int], TokenBatch], None] | None = None,
) -> dict[str, Any]:
    """Differentiate the objective over ``samples``, step the optimizer, and return the update's metrics.

    The denominator is that of the whole mini-batch, so micro-batches never change the gradient. ``on_tokens`` is called
    with every token of the update, at the weights before the step, and the order of ``samples`` in that batch.

    Raises:
        DataError: log π or log μ of a token is not finite or positive. TrainingError: the gradient is not finite.
            Either way the weights are as before.
    """
    started = time.perf_counter()
    tokens = sum(len(sample.response.token_ids) for sample in samples)
    denominator = tokens if config.aggregation == "token_mean" else len(samples)
    optimizer.zero_grad(set_to_none=True)
    losses, seen, order = [], [], []
    lengths = [len(sample.prompt_ids) + len(sample.response.token_ids) for sample in samples]
    # On a CPU small micro-batches stay in its cache: measured a quarter faster than one of 16,384 tokens.
    budget = config.micro_batch_tokens or (2048 if policy.device.type == "cpu" else 16_384)
    for rows in micro_batches(lengths, budget):
        part = [samples[row] for row in rows]
        batch = token_batch(policy, part, [advantages[row] for row in rows], config.temperature)
        loss = aggregate(objective(batch).loss, batch, config.aggregation, denominator, config.horizon)
        loss.backward()
        losses.append(loss.detach())
        seen.append(batch)
        order += rows
    batch = concatenate(seen)  # validates the values, once an update
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), config.gradient_clip)
    if not bool(torch.isfinite(norm)):
        raise TrainingError(f"the gradient norm is {float(norm)}: the update was not applied. Lower learning_rate, or "
                            f"look at the objective ({objective}).")
    optimizer.step()
    if on_tokens is not None:
        on_tokens(order, batch)
    return {
        "loss": float(torch.stack(losses).sum()),
        **response_metrics(samples),
        **token_metrics(batch, objective, config.delta),
        "gradient_norm": float(norm),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "tokens": tokens,
        "sequences": len(samples),
        "seconds": time.perf_counter() - started,
    }


def token_batch(
    policy: Policy, samples: Sequence[Sample], advantages: Sequence[float], temperature: float
) -> TokenBatch:
    """The packed batch of ``samples`` under the current policy."""
    sequences = [Sequences(sample.prompt_ids, sample.response.token_ids) for sample in samples]
    logprobs, entropy = policy.response_logprobs(sequences, temperature)
    lengths = torch.tensor([len(sequence.token_ids) for sequence in sequences])
    behavior = torch.tensor([value for sample in samples for value in sample.response.behavior_logprobs])
    device = logprobs.device
    return TokenBatch(
        logprobs,
        behavior.to(device),
        torch.tensor(advantages, dtype=torch.float32).repeat_interleave(lengths).to(device),
        sequence_ids=torch.arange(len(samples)).repeat_interleave(lengths).to(device),
        entropy=entropy,
        validate=False,
    )


def concatenate(batches: Sequence[TokenBatch]) -> TokenBatch:
    """All tokens of an update, without gradient, their values checked."""
    ids, offset = [], 0
    for batch in batches:
        assert batch.sequence_ids is not None
        ids.append(batch.sequence_ids + offset)
        offset += int(batch.sequence_ids[-1]) + 1
    return TokenBatch(
        torch.cat([batch.logprobs.detach() for batch in batches]),
        torch.cat([batch.behavior_logprobs for batch in batches]),
        torch.cat([batch.advantages for batch in batches]),
        sequence_ids=torch.cat(ids),
        entropy=torch.cat([batch.entropy for batch in batches if batch.entropy is not None]),
    )


def response_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """What the sampled responses were like, before this update; all rewards are there."""
    rewards = [sample.grade.reward or 0.0 for sample in samples]
    count = len(samples)
    return {
        "reward": sum(rewards) / count,
        "accuracy": sum(reward >= 1 for reward in rewards) / count,
        "response_length": sum(len(sample.response.token_ids) for sample in samples) / count,
        "truncated_share": sum(sample.response.stop_reason == "length" for sample in samples) / count,
    }


def token_metrics(batch: TokenBatch, objective: Objective, delta: float) -> dict[str, Any]:
    """Diagnostics over every token of the update, each counted once, at the weights before the step."""
    mismatch = (at_least_float32(batch.logprobs) - at_least_float32(batch.behavior_logprobs)).abs()
    shift = binary_tv(batch.logprobs, batch.behavior_logprobs)
    weight = gradient_weight(objective, batch)
    assert batch.entropy is not None
    return {
        **{name: metric.item() for name, metric in diagnose(batch, delta, objective).items()},
        "delta": delta,
        "entropy": Metric.of(batch.entropy).item(),
        "shift_p99": quantile(shift, 0.99),
        "mismatch_p95": quantile(mismatch, 0.95),
        "histograms": {
            "shift": histogram(shift, SHIFT_EDGES),
            "weight": histogram(weight[~weight.isnan()], WEIGHT_EDGES),
        },
    }


def histogram(values: torch.Tensor, edges: Sequence[float]) -> list[int]:
    """Counts of ``values`` ``[N]`` per bin of ``edges``; values outside count in the first or last bin."""
    inner = torch.tensor(edges[1:-1], dtype=torch.float64, device=values.device)
    bins = torch.bucketize(values.double(), inner, right=True)
    return torch.bincount(bins, minlength=len(edges) - 1).tolist()
