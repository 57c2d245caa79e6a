"""The divergences themselves, of a token and of whole distributions."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given

from drpo import TokenBatch, gradient_weight, make_objective
from drpo.divergence import (
    binary_kl,
    binary_tv,
    k1,
    k2,
    k3,
    k_reverse,
    kl,
    log_ratio,
    ratio,
    relative_shift,
    shift,
    support_logprobs,
    total_variation,
)
from drpo.objectives.projection import project
from support.batches import Tokens, token_batches
from support.slopes import assert_same, distributions


@given(tokens=token_batches())
def test_divergences(tokens: Tokens):
    pi, mu = tokens.logprobs, tokens.behavior_logprobs
    torch.testing.assert_close(ratio(pi, mu), pi.exp() / mu.exp(), rtol=1e-10, atol=0)
    torch.testing.assert_close(relative_shift(pi, mu), (pi.exp() - mu.exp()) / mu.exp(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(shift(pi, mu), pi.exp() - mu.exp(), rtol=1e-9, atol=1e-15)
    assert torch.equal(binary_tv(pi, mu), shift(pi, mu).abs())
    x = pi - mu
    torch.testing.assert_close(k1(x), mu - pi)
    torch.testing.assert_close(k2(x), 0.5 * (pi - mu) ** 2)
    torch.testing.assert_close(k3(x), pi.exp() / mu.exp() - 1 - (pi - mu), rtol=1e-7, atol=1e-12)
    assert bool((k3(x) >= 0).all())
    torch.testing.assert_close(k_reverse(x), x.exp() * x - (x.exp() - 1), rtol=1e-7, atol=1e-12)
    assert bool((k_reverse(x) >= -1e-12 * x.exp()).all())


@given(tokens=token_batches())
def test_binary_kl_and_pinsker(tokens: Tokens):
    pi, mu = tokens.logprobs.exp(), tokens.behavior_logprobs.exp()
    found = binary_kl(tokens.logprobs, tokens.behavior_logprobs)
    rest = (1 - mu) * ((1 - mu) / (1 - pi)).log()
    torch.testing.assert_close(found, mu * (mu / pi).log() + rest, rtol=1e-6, atol=1e-8)
    assert bool((found + 1e-12 >= 2 * binary_tv(tokens.logprobs, tokens.behavior_logprobs) ** 2).all())


def test_binary_kl_at_certainty():
    def of(pi: float, mu: float) -> float:
        return float(binary_kl(torch.tensor([pi]), torch.tensor([mu])))

    assert of(0.0, 0.0) == 0.0
    assert of(-2.0, 0.0) == pytest.approx(2.0)  # μ = 1: log(1/π)
    assert of(0.0, -2.0) == math.inf  # π = 1 > μ
    assert of(1e-5, -2.0) == math.inf  # … rounded above 0
    assert of(-1000.0, -0.5) > 600


def test_shift_keeps_its_digits_where_pi_is_almost_mu():
    # log μ is close to 0, so that log μ + step has digits to spare; the step really taken is the difference.
    log_mu = torch.tensor([-1e-3, -1e-3, -1e-4, -1e-4], dtype=torch.float64)
    log_pi = log_mu + torch.tensor([1.23e-12, -1.23e-12, 4.56e-9, -4.56e-9], dtype=torch.float64)
    x = log_pi - log_mu
    relative = x + x**2 / 2  # the series of e^x − 1
    torch.testing.assert_close(relative_shift(log_pi, log_mu), relative, rtol=1e-12, atol=0)
    torch.testing.assert_close(shift(log_pi, log_mu), log_mu.exp() * relative, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_token_maths_is_float32_at_least(dtype: torch.dtype):
    pi, mu = torch.tensor([-1.5], dtype=dtype), torch.tensor([-2.0], dtype=dtype)
    for values in (ratio(pi, mu), shift(pi, mu), binary_tv(pi, mu), log_ratio(pi, mu)):
        assert values.dtype == torch.float32
    assert float(ratio(pi, mu)) == pytest.approx(math.exp(0.5), rel=1e-6)
    assert ratio(pi.double(), mu).dtype == torch.float64


def test_log_ratio_saturates_in_value_and_not_in_gradient():
    pi = torch.tensor([-1.0, -100.0, 0.0, -41.5], dtype=torch.float64, requires_grad=True)
    mu = torch.tensor([-1.5, -1.0, -1000.0, -0.5], dtype=torch.float64)
    values = log_ratio(pi, mu)
    assert values.tolist() == [0.5, -40.0, 40.0, -40.0]
    values.sum().backward()
    assert pi.grad is not None and pi.grad.tolist() == [1.0] * 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("pi", "mu"), [(-0.3, -0.3), (-0.3, -2.0), (-2.0, -0.3), (-0.3, -30.0), (-30.0, -0.3)])
def test_gradients_of_shift_and_of_the_relative_shift(pi: float, mu: float, dtype: torch.dtype):
    """∂(π − μ)/∂log π = π, with every digit, on both sides of the ratio 1 and at it."""
    for function, expected in ((shift, math.exp(pi)), (relative_shift, math.exp(pi - mu))):
        leaf = torch.tensor([pi], dtype=dtype, requires_grad=True)
        (slope,) = torch.autograd.grad(function(leaf, torch.tensor([mu], dtype=dtype)).sum(), leaf)
        assert float(slope) == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 5e-6)


# ---- whole distributions


@given(tokens=token_batches())
def test_topk_of_the_sampled_token_alone_is_the_binary_divergence(tokens: Tokens):
    n = len(tokens)
    tokens = dataclasses.replace(
        tokens,
        optional={
            "topk_logprobs": tokens.logprobs.unsqueeze(1),
            "topk_is_sampled": torch.ones(n, 1, dtype=torch.bool),
            "topk_behavior_logprobs": tokens.behavior_logprobs.unsqueeze(1),
        },
    )
    tv = binary_tv(tokens.logprobs, tokens.behavior_logprobs)
    kl = binary_kl(tokens.logprobs, tokens.behavior_logprobs)
    assume(bool(((tv - 0.15).abs() > 1e-9).all()) and bool(((kl - 0.05).abs() > 1e-6).all()))
    assert_same(make_objective("dppo_topk_tv"), make_objective("dppo_tv"), tokens, 0.0)
    assert_same(make_objective("dppo_topk_kl"), make_objective("dppo_kl"), tokens, 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_topk_of_the_whole_vocabulary_is_the_exact_divergence(dtype: torch.dtype):
    n, vocabulary = 400, 7
    pi, mu = distributions(0, n, vocabulary)
    tv, kl = 0.5 * (pi.exp() - mu.exp()).abs().sum(1), (mu.exp() * (mu - pi)).sum(1)
    sampled = torch.arange(n) % vocabulary
    advantages = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0).double()
    order = mu.argsort(1, descending=True)
    of_sampled = [values.gather(1, sampled.unsqueeze(1)).squeeze(1).to(dtype) for values in (pi, mu)]
    batch = TokenBatch(
        of_sampled[0],
        of_sampled[1],
        advantages.to(dtype),
        topk_logprobs=pi.gather(1, order).to(dtype),
        topk_behavior_logprobs=mu.gather(1, order).to(dtype),
        topk_is_sampled=order == sampled.unsqueeze(1),
    )
    diverging = advantages * (batch.logprobs - batch.behavior_logprobs).double() > 0
    cases: list[tuple[str, torch.Tensor, dict[str, Any], float]] = [
        ("dppo_topk_tv", tv, {"delta": 0.15}, 0.15),
        ("dppo_topk_kl", kl, {"kl_max": 0.05}, 0.05),
    ]
    for name, divergence, bound, limit in cases:
        assert bool(((divergence - limit).abs() > 1e-5).all())
        weight = gradient_weight(make_objective(name, k=vocabulary, **bound), batch)
        assert 20 < int((weight == 0).sum()) < n - 20
        assert weight.double().tolist() == (~(diverging & (divergence > limit))).double().tolist()


def test_fewer_of_the_vocabulary_never_overstate_the_divergence():
    """A coarser partition has the smaller divergence: binary ≤ top-K ≤ exact."""
    pi, mu = distributions(1, 300, 12)
    sampled = torch.full((300, 1), 3)
    order = mu.argsort(1, descending=True)
    found = []
    for k in (0, 1, 4, 12):
        supports = [
            support_logprobs(
                values.gather(1, sampled).squeeze(1), values.gather(1, order[:, :k]), order[:, :k] == sampled
            )
            for values in (pi, mu)
        ]
        found.append((total_variation(*supports), kl(supports[1], supports[0])))
    binary = binary_tv(pi[:, 3], mu[:, 3]), binary_kl(pi[:, 3], mu[:, 3])
    for ours, exact in zip(found[0], binary, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-12)
    for (tv, divergence), (finer_tv, finer) in itertools.pairwise(found):
        assert bool((tv <= finer_tv + 1e-12).all()) and bool((divergence <= finer + 1e-12).all())
    torch.testing.assert_close(found[-1][0], 0.5 * (pi.exp() - mu.exp()).abs().sum(1))
    torch.testing.assert_close(found[-1][1], (mu.exp() * (mu - pi)).sum(1))


def test_trolls_projection_is_the_nearest_point_of_the_region():
    """On the bound, between μ and π, and no other point of the region has a smaller KL from π."""
    pi, mu = distributions(2, 50, 6)
    far = (pi.exp() * (pi - mu)).sum(1) > 0.02
    assert 10 < int(far.sum()) < 50
    p = project(pi, mu, 0.02)
    torch.testing.assert_close(p.exp().sum(1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(kl(p, mu)[far], torch.full((int(far.sum()),), 0.02, dtype=torch.float64))
    torch.testing.assert_close(p[~far], pi[~far])
    generator = torch.Generator().manual_seed(0)
    tried = 0
    for _ in range(300):
        other = (p + 0.05 * torch.randn(p.shape, generator=generator, dtype=torch.float64)).log_softmax(1)
        allowed = kl(other, mu) <= 0.02
        tried += int((allowed & far).sum())
        assert bool((kl(other, pi) >= kl(p, pi) - 1e-12)[allowed].all())
    assert tried > 1000


def test_trolls_projection_is_differentiated_through_its_multiplier():
    pi, mu = distributions(3, 8, 5)
    leaf = pi.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: project(x, mu, 0.02), leaf)
