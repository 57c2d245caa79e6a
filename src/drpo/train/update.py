"""One optimizer step over one mini-batch of responses, and what it measured.

Shapes: ``N`` response tokens of the mini-batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from drpo.batch import TokenBatch
from drpo.diagnostics import diagnose, diagnose_weight, quantile, verdicts
from drpo.divergence import at_least_float32, binary_tv
from drpo.errors import TrainingError
from drpo.metrics import Metric
from drpo.model.policy import Policy
from drpo.objectives import Objective, gradient_weight, make_objective
from drpo.run_directory import SHIFT_EDGES, WEIGHT_EDGES
from drpo.train.gradient import accumulate_gradient
from drpo.train.rollout import Sample
from drpo.train.settings import UpdateSettings

#: What every update is judged by as well, at their defaults: each holds tokens back by another rule.
OTHERS = {name: make_objective(name) for name in ("ppo", "spo", "dppo_tv", "dppo_kl", "drpo", "gspo", "cppo", "m2po")}


def make_optimizer(policy: Policy, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over what is trained, in float32; after each step the model computes with the new weights."""
    optimizer = torch.optim.AdamW(policy.trained_parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    if policy.masters is not None:
        optimizer.register_step_post_hook(policy.masters.publish)
    return optimizer


def update_policy(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    samples: Sequence[Sample],
    advantages: Sequence[float],
    settings: UpdateSettings,
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
    optimizer.zero_grad(set_to_none=True)
    loss, batch, order = accumulate_gradient(
        policy, objective, samples, advantages, settings.reduction, settings.forward
    )
    norm = torch.nn.utils.clip_grad_norm_(policy.trained_parameters(), settings.gradient_clip)
    if not bool(torch.isfinite(norm)):
        raise TrainingError(
            f"the gradient norm is {float(norm)}: the update was not applied. Lower learning_rate, or "
            f"look at the objective ({objective})."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # sampling comes next, and has use for the memory
    if on_tokens is not None:
        on_tokens(order, batch)
    return {
        "loss": loss,
        **response_metrics(samples),
        **token_metrics(batch, objective, settings.delta),
        "gradient_norm": float(norm),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "tokens": len(batch),
        "sequences": len(samples),
        "seconds": time.perf_counter() - started,
    }


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
    found = diagnose(batch, delta) | diagnose_weight(weight, batch)
    assert batch.entropy is not None
    return {
        **{name: metric.item() for name, metric in found.items()},
        "delta": delta,
        "others": {
            label: {name: metric.item() for name, metric in verdict.items()}
            for label, verdict in verdicts(batch, OTHERS).items()
        },
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
