"""The choice of `clip_cov`: it looks random and hangs on nothing but the tokens' own μ."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from drpo import make_objective
from drpo.objectives.update import splitmix64
from support.batches import Tokens, random_tokens
from support.facts_update import splitmix64 as in_python

pytestmark = pytest.mark.slow


def dropped(tokens: Tokens, fraction: float) -> torch.Tensor:
    """Of the tokens that PPO's clip keeps, those without a loss."""
    loss = make_objective("clip_cov", fraction=fraction, covariance_low=0.0, ratio_low=1.0, ratio_high=1e30)(
        tokens.batch()
    ).loss
    return loss == 0


def test_the_hash_is_splitmix64() -> None:
    values = torch.tensor([-0.5, -1.0, -23.0, -1e-7, 0.0, -0.0], dtype=torch.float64)
    assert splitmix64(values.view(torch.int64)).tolist() == [in_python(value) for value in values.tolist()]
    assert in_python(0.0) == 0  # the finalizer alone, without the generator's increment


def test_as_many_as_asked_whatever_the_order() -> None:
    tokens = random_tokens(0, (400, 600), make_objective("clip_cov"))
    chosen = dropped(tokens, 0.1)
    assert int(chosen.sum()) == 100
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    shuffled = dataclasses.replace(tokens.select(order), sequence_ids=torch.zeros(1000, dtype=torch.int64))
    assert torch.equal(dropped(shuffled, 0.1), chosen[order])


def test_tokens_with_one_mu_are_chosen_in_the_order_of_the_batch() -> None:
    tokens = random_tokens(0, (400, 600), make_objective("clip_cov"))
    certain = dataclasses.replace(tokens, behavior_logprobs=torch.zeros(1000, dtype=torch.float64))
    chosen = dropped(certain, 0.1)
    eligible = dropped(certain, 1.0)
    assert int(chosen.sum()) == 100 and torch.equal(chosen, eligible & (eligible.cumsum(0) <= 100))


def test_the_choice_does_not_prefer_rare_or_common_tokens() -> None:
    """Of the allowed tokens, those chosen have μ's quantiles within four standard errors of all of them."""
    tokens = random_tokens(3, (10_000, 10_000), make_objective("clip_cov"))
    eligible = dropped(tokens, 1.0)
    chosen = dropped(tokens, 0.1)
    assert int(chosen.sum()) == 2000 and not bool((chosen & ~eligible).any())
    for quantile in (0.1, 0.5, 0.9):
        bound = tokens.behavior_logprobs[eligible].quantile(quantile)
        share = (tokens.behavior_logprobs[chosen] <= bound).double().mean()
        assert abs(float(share) - quantile) <= 4 * (quantile * (1 - quantile) / 2000) ** 0.5
