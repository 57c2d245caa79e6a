"""The gradient of an objective over one mini-batch of responses, in micro-batches that never change it.

Shapes: ``N`` response tokens of a micro-batch, or of the mini-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from drpo.aggregation import Reduction
from drpo.batch import TokenBatch
from drpo.kernels import choose_backend, fused_loss
from drpo.model.forward import ForwardSettings, Sequences, micro_batches, supports, targets
from drpo.model.policy import Policy
from drpo.objectives import Objective
from drpo.train.rollout import Sample


def accumulate_gradient(
    policy: Policy,
    objective: Objective,
    samples: Sequence[Sample],
    advantages: Sequence[float],
    reduction: Reduction,
    forward: ForwardSettings,
) -> tuple[float, TokenBatch, list[int]]:
    """Add the gradient of the objective over ``samples`` to the policy's parameters.

    An objective that decides over the whole update (``sequence_local`` is False) sees the whole update first: one
    forward pass without gradient gives the derivative of the loss with respect to each log-probability, and a second
    one, in micro-batches, passes these on to the parameters. That is the same gradient, for one more forward pass.

    Args:
        policy: its parameters collect the gradient.
        objective: the per-token loss.
        samples: the responses of the update.
        advantages: one for each of ``samples``.
        reduction: how token losses become one number; its denominator is set to that of ``samples``.
        forward: temperature and micro-batch size of the forward passes.

    Returns:
        the loss, all tokens of the update (without gradient), and the order in which ``samples`` stand in that batch.

    Raises:
        DataError: log π or log μ of a token is not finite or positive.
    """
    with policy.prompts_once(sequences_of(samples), forward.micro_batch_tokens) as prompts_done:
        tokens = sum(len(sample.response.token_ids) for sample in samples)
        whole = reduction.over(tokens, len(samples))
        return _accumulate(policy, objective, samples, advantages, whole, forward, prompts_done)


def _accumulate(
    policy: Policy,
    objective: Objective,
    samples: Sequence[Sample],
    advantages: Sequence[float],
    reduction: Reduction,
    forward: ForwardSettings,
    prompts_done: bool,
) -> tuple[float, TokenBatch, list[int]]:
    def batch_of(rows: Sequence[int]) -> TokenBatch:
        return token_batch(policy, *pick(samples, advantages, rows), forward.temperature)

    def loss_of(batch: TokenBatch) -> torch.Tensor:
        return reduction(objective(batch).loss, batch)

    pushing, idle = split_idle(objective, advantages)
    parts = split(policy, samples, pushing, forward, prompts_done)
    if objective.sequence_local or len(parts) == 1:
        losses, seen = [], []
        for rows in parts:
            if can_fuse(policy, objective):
                loss, batch = fused(policy, objective, *pick(samples, advantages, rows), forward.temperature, reduction)
            else:
                batch = batch_of(rows)
                loss = loss_of(batch)
            loss.backward()
            losses.append(loss.detach())
            seen.append(batch)
        idle_parts = split(policy, samples, idle, forward, prompts_done)
        with torch.no_grad():
            for rows in idle_parts:
                seen.append(batch_of(rows))
                losses.append(loss_of(seen[-1]))
        order = [row for rows in parts + idle_parts for row in rows]
        return float(torch.stack(losses).sum()), concatenate(seen), order
    with torch.no_grad():
        whole = concatenate([batch_of(rows) for rows in parts])
    loss, slopes = differentiate(loss_of, whole)
    start = 0
    for rows in parts:
        batch = batch_of(rows)
        end = start + len(batch)
        values = [getattr(batch, field) for field in slopes]
        torch.autograd.backward(values, [slope[start:end] for slope in slopes.values()])
        start = end
    return loss, whole, [row for rows in parts for row in rows]


def split_idle(objective: Objective, advantages: Sequence[float]) -> tuple[list[int], list[int]]:
    """Rows that have a gradient, and those that are only measured.

    The gradient of a homogeneous objective is proportional to the advantages it is given, so that a sequence without
    one (all rewards of its group were equal) has none.
    """
    rows = list(range(len(advantages)))
    if not (objective.homogeneous and objective.sequence_local and any(advantages)):
        return rows, []
    return [row for row in rows if advantages[row]], [row for row in rows if not advantages[row]]


def pick(
    samples: Sequence[Sample], advantages: Sequence[float], rows: Sequence[int]
) -> tuple[list[Sample], list[float]]:
    """The ``rows`` of both."""
    return [samples[row] for row in rows], [advantages[row] for row in rows]


def differentiate(
    loss_of: Callable[[TokenBatch], torch.Tensor], batch: TokenBatch
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of ``batch``, and field → its derivative with respect to every log-probability that π gave."""
    leaves = {"logprobs": batch.logprobs.detach().requires_grad_(True)}
    if batch.topk_logprobs is not None:
        leaves["topk_logprobs"] = batch.topk_logprobs.detach().requires_grad_(True)
    given: dict[str, Any] = leaves
    loss = loss_of(replace(batch, **given, validate=False))
    # An objective that drops every token has no graph.
    total = loss + sum(0.0 * leaf.sum() for leaf in leaves.values())
    slopes = torch.autograd.grad(total, list(leaves.values()))
    return float(loss.detach()), dict(zip(leaves, slopes, strict=True))


def loss_path(policy: Policy, objective: Objective, forward: ForwardSettings) -> str:
    """How the loss comes from hidden states, for the run's records."""
    if can_fuse(policy, objective):
        return "fused_loss"
    if policy.head is None or objective.topk:
        return "whole logits"
    states = policy.head[:1].expand(forward.micro_batch_tokens, -1)
    return f"token_logprobs ({choose_backend(states, policy.head)})"


def split(
    policy: Policy, samples: Sequence[Sample], rows: Sequence[int], forward: ForwardSettings, prompts_done: bool = False
) -> list[list[int]]:
    """``rows`` of ``samples`` in micro-batches; the prompts' own pass may be done."""
    sequences = sequences_of([samples[row] for row in rows])
    parts = micro_batches(sequences, forward.micro_batch_tokens, policy.way, prompts_done)
    return [[rows[index] for index in part] for part in parts]


@torch.no_grad()
def with_proximal_logprobs(policy: Policy, samples: Sequence[Sample], forward: ForwardSettings) -> list[Sample]:
    """``samples`` with log π_old, which the policy gives them at its present weights: those that sampled them."""
    done = list(samples)
    for rows in split(policy, samples, range(len(samples)), forward):
        sequences = sequences_of([samples[row] for row in rows])
        logprobs, _ = policy.response_logprobs(sequences, forward.temperature)
        lengths = [len(sequence.token_ids) for sequence in sequences]
        for row, values in zip(rows, logprobs.split(lengths), strict=True):
            done[row] = replace(samples[row], proximal_logprobs=values.tolist())
    return done


def can_fuse(policy: Policy, objective: Objective) -> bool:
    """Whether the loss and its gradients come straight from hidden states: the objective looks at no more of the
    distribution than the sampled token, and the logits are a plain product."""
    return policy.head is not None and not objective.topk and "entropy" not in objective.needs


def fused(
    policy: Policy,
    objective: Objective,
    samples: Sequence[Sample],
    advantages: Sequence[float],
    temperature: float,
    reduction: Reduction,
) -> tuple[torch.Tensor, TokenBatch]:
    """The aggregated loss of ``samples``, and their packed batch (without gradient)."""
    assert policy.head is not None
    sequences, constants = sequences_of(samples), constants_of(samples, advantages, policy.device)
    out = fused_loss(
        policy.response_states(sequences),
        policy.head,
        targets(sequences, policy.device),
        objective,
        temperature=temperature,
        support=supports(sequences, policy.device),
        **constants,
        mode=reduction.mode,
        denominator=reduction.denominator,
        horizon=reduction.horizon,
    )
    return out.loss, TokenBatch(out.logprobs, entropy=out.entropy, validate=False, **constants)


def token_batch(
    policy: Policy, samples: Sequence[Sample], advantages: Sequence[float], temperature: float
) -> TokenBatch:
    """The packed batch of ``samples`` under the current policy, with all that the samples hold."""
    sequences, constants = sequences_of(samples), constants_of(samples, advantages, policy.device)
    topk_ids = flat([sample.response.topk_ids for sample in samples])
    if topk_ids is None:
        logprobs, constants["entropy"] = policy.response_logprobs(sequences, temperature)
    else:
        found = policy.topk_logprobs(sequences, temperature, torch.tensor(topk_ids))
        logprobs, constants["entropy"], constants["topk_logprobs"], constants["topk_is_sampled"] = found
        topk = flat([sample.response.topk_logprobs for sample in samples])
        constants["topk_behavior_logprobs"] = torch.tensor(topk, device=policy.device)
    return TokenBatch(logprobs, validate=False, **constants)


def sequences_of(samples: Sequence[Sample]) -> list[Sequences]:
    """Token ids of ``samples``, and what their rollout reported besides: the tokens that each one was drawn from, and
    the experts they went through."""
    return [Sequences(s.prompt_ids, s.response.token_ids, s.response.experts, s.response.support) for s in samples]


def constants_of(samples: Sequence[Sample], advantages: Sequence[float], device: torch.device) -> dict[str, Any]:
    """Fields of TokenBatch that ``samples`` hold, one entry a response token."""
    lengths = torch.tensor([len(sample.response.token_ids) for sample in samples])
    constants = {
        "behavior_logprobs": torch.tensor(flat([sample.response.behavior_logprobs for sample in samples])),
        "advantages": torch.tensor(advantages, dtype=torch.float32).repeat_interleave(lengths),
        "sequence_ids": torch.arange(len(samples)).repeat_interleave(lengths),
    }
    proximal = flat([sample.proximal_logprobs for sample in samples])
    if proximal is not None:
        constants["proximal_logprobs"] = torch.tensor(proximal)
    return {name: values.to(device) for name, values in constants.items()}


def flat(parts: Sequence[Sequence[Any] | None]) -> list[Any] | None:
    """One list of all parts; None if any is missing."""
    values: list[Any] = []
    for part in parts:
        if part is None:
            return None
        values += part
    return values


def concatenate(batches: Sequence[TokenBatch]) -> TokenBatch:
    """All tokens of an update, without gradient, their values checked."""
    joined: dict[str, Any] = {}
    for field in fields(TokenBatch):
        parts = [getattr(batch, field.name) for batch in batches]
        if field.name != "sequence_ids" and all(part is not None for part in parts):
            joined[field.name] = torch.cat([part.detach() for part in parts])
    ids, offset = [], 0
    for batch in batches:
        assert batch.sequence_ids is not None
        ids.append(batch.sequence_ids + offset)
        offset += int(batch.sequence_ids[-1]) + 1
    return TokenBatch(**joined, sequence_ids=torch.cat(ids))
