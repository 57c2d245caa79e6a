"""Losses with their slopes, for tests that compare objectives."""

from __future__ import annotations

import torch

from drpo import Objective
from support.batches import Tokens, tokens_from_probabilities, with_needs


def loss_and_slope(objective: Objective, tokens: Tokens, dtype: torch.dtype = torch.float64):
    if not tokens.optional:
        tokens = with_needs(tokens, objective.needs)
    batch = tokens.batch(dtype, requires_grad=True)
    loss = objective(batch).loss
    (slope,) = torch.autograd.grad(loss.sum(), batch.logprobs)
    return loss.detach(), slope


def assert_same(one: Objective, other: Objective, tokens: Tokens, rtol: float = 1e-12) -> None:
    for ours, theirs in zip(loss_and_slope(one, tokens), loss_and_slope(other, tokens), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=0)


def slope_in_pi(objective: Objective, pi: float, mu: float, advantage: float) -> float:
    """∂J/∂π of one token, from the gradient with respect to log π."""
    _, slope = loss_and_slope(objective, tokens_from_probabilities([pi], [mu], [advantage]))
    return -float(slope) / pi


def distributions(seed: int, n: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log π and log μ ``[n, vocabulary]``, close enough that some tokens are inside the bounds."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(n, vocabulary, generator=generator, dtype=torch.float64)
    other = logits + 0.4 * torch.randn(n, vocabulary, generator=generator, dtype=torch.float64)
    return other.log_softmax(1), logits.log_softmax(1)
