"""How the objectives relate to each other and to the papers' formulas (docs: the method)."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from batches import Tokens, random_tokens, token_batches, tokens_from_probabilities, with_needs
from hypothesis import assume, given
from hypothesis import strategies as st

from drpo import OBJECTIVES, Objective, TokenBatch, gradient_weight, make_objective
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
from drpo.errors import DrpoWarning
from drpo.objectives import regularized
from drpo.objectives.projection import project

ignore_vacuous_delta = pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning")
probabilities = st.floats(1e-6, 1 - 1e-6)
signs = st.sampled_from([-1.0, 1.0])


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


# ---- limits and special cases


@ignore_vacuous_delta
@pytest.mark.parametrize(
    ("name", "parameters", "rtol"),
    [
        ("ppo", {"ratio_low": 1.0, "ratio_high": 1e30}, 0.0),
        ("grpo", {"ratio_low": 1.0, "ratio_high": 1e30, "dual_clip": 1e31}, 0.0),
        ("spo", {"epsilon": 1e30}, 1e-12),
        ("dppo_tv", {"delta": 1.0}, 0.0),
        ("drpo", {"delta": 1e30}, 1e-12),
        ("drpo", {"delta": 1e30, "deadzone": 0.5}, 1e-12),
        ("drpo", {"delta": 1e30, "advantage_weighted": False}, 1e-12),
        ("truly_ppo", {"ratio_low": 1.0, "ratio_high": 1e30}, 1e-12),
        ("kimi", {"log_ratio_max": 100.0, "coefficient": 0}, 0.0),
        ("dppo_kl", {"kl_max": 1e30}, 0.0),
        ("dppo_topk_tv", {"delta": 1.0}, 0.0),
        ("dppo_topk_kl", {"kl_max": 1e30}, 0.0),
        ("vaco", {"ratio_shift": 1e30}, 0.0),
        ("cppo", {"delta": 1.0, "budget": 1.0}, 0.0),
        ("m2po", {"second_moment_max": 1e30}, 0.0),
        ("troll", {"kl_max": 1e30, "coefficient": 0}, 1e-12),
        ("mask_drpo", {"delta": 1e30, "boundary": 0}, 1e-12),
        ("mask_drpo", {"delta": 0.1, "boundary": 1}, 0.0),
        ("kl_penalty", {"coefficient": 0}, 0.0),
        ("kl_penalty", {"coefficient": 0, "estimator": "reverse", "advantage_weighted": False}, 0.0),
        ("tv_penalty", {"coefficient": 0}, 0.0),
        ("mdpo", {"step_size": 1e30}, 1e-12),
    ],
)
@given(tokens=token_batches())
def test_an_infinite_bound_leaves_the_surrogate(name: str, parameters: dict, rtol: float, tokens: Tokens):
    assert_same(make_objective(name, **parameters), make_objective("surrogate"), tokens, rtol)


@given(tokens=token_batches(zero_advantages=True))
def test_grpo_is_ppo_with_another_bound(tokens: Tokens):
    assert_same(make_objective("grpo"), make_objective("ppo", ratio_low=0.2, ratio_high=0.28), tokens, 0.0)
    same: dict[str, Any] = {"ratio_low": 0.1, "ratio_high": 0.3, "dual_clip": 3.0}
    assert_same(make_objective("grpo", **same), make_objective("ppo", **same), tokens, 0.0)


@given(tokens=token_batches())
def test_deadzone_zero_is_the_papers_drpo(tokens: Tokens):
    delta = 0.2
    r, mu, size = tokens.ratio, tokens.behavior_logprobs.exp(), tokens.advantages.abs()
    value = r * tokens.advantages - size / (2 * delta) * mu * (r - 1) ** 2
    loss, _ = loss_and_slope(make_objective("drpo", delta=delta, deadzone=0.0), tokens)
    torch.testing.assert_close(loss, -value, rtol=1e-9, atol=1e-12)
    assert_same(make_objective("drpo", delta=delta, deadzone=0.0), make_objective("drpo", delta=delta), tokens, 0.0)
    # … and the limit of a vanishing dead zone, so that there is nothing special about 0.
    tiny, _ = loss_and_slope(make_objective("drpo", delta=delta, deadzone=1e-12), tokens)
    torch.testing.assert_close(tiny, loss, rtol=1e-6, atol=1e-9)


def test_spo_with_epsilon_delta_over_mu_is_drpo():
    delta = 0.15
    tokens = random_tokens(11, lengths=(20, 20), spread=2.0)
    for i in range(len(tokens)):
        token = tokens.select(torch.tensor([i]))
        epsilon = delta / math.exp(float(token.behavior_logprobs))
        assert_same(make_objective("spo", epsilon=epsilon), make_objective("drpo", delta=delta), token, 1e-9)


# ---- one objective is another with other parameters


@given(tokens=token_batches())
def test_sequences_of_one_token_make_sequence_level_ppo(tokens: Tokens):
    alone = dataclasses.replace(tokens, sequence_ids=torch.arange(len(tokens)))
    bounds: dict[str, Any] = {"ratio_low": 0.1, "ratio_high": 0.3}
    assert_same(make_objective("gspo", **bounds), make_objective("ppo", **bounds), alone)
    # GMPO clips the log-ratio; there is no other difference for a single token.
    gmpo, ppo = make_objective("gmpo", log_ratio_max=0.2), make_objective(
        "ppo", ratio_low=1 - math.exp(-0.2), ratio_high=math.exp(0.2) - 1
    )
    assert_same(gmpo, ppo, alone, 1e-9)


@given(tokens=token_batches(), rollback=st.floats(0.0, 2.0))
def test_truly_ppo_without_a_rollback_is_ppo(tokens: Tokens, rollback: float):
    assert_same(make_objective("truly_ppo", rollback=0), make_objective("ppo"), tokens, 0.0)
    inside = gradient_weight(make_objective("ppo"), tokens.batch())
    weight = gradient_weight(make_objective("truly_ppo", rollback=rollback), tokens.batch())
    torch.testing.assert_close(weight, inside - (1 - inside) * rollback)


@given(tokens=token_batches())
def test_aipo_is_cispo_with_another_cap_and_both_are_dppos_numerator(tokens: Tokens):
    cap: dict[str, Any] = {"ratio_cap": 3.0}
    assert_same(make_objective("aipo", **cap), make_objective("cispo", **cap), tokens, 0.0)
    assert_same(make_objective("cispo", **cap), make_objective("dppo_tv", delta=1.0, **cap), tokens, 0.0)


@given(tokens=token_batches())
def test_an_infinite_cap_has_the_surrogates_gradient(tokens: Tokens):
    _, expected = loss_and_slope(make_objective("surrogate"), tokens)
    _, slope = loss_and_slope(make_objective("cispo", ratio_cap=1e300), tokens)
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=0)


@given(tokens=token_batches(), delta=st.floats(0.02, 0.9))
def test_mask_drpo_between_drpo_the_surrogate_and_dppo(tokens: Tokens, delta: float):
    assume(bool(((tokens.shift.abs() - delta).abs() > 1e-9).all()))
    drpo = make_objective("drpo", delta=delta)
    assert_same(make_objective("mask_drpo", delta=delta, boundary=0), drpo, tokens, 0.0)
    # Harmful tokens beyond δ are pulled back, and all that DPPO keeps is the plain surrogate.
    harmful_only = make_objective("mask_drpo", delta=delta, boundary=delta, harmful_only=True)
    weight = gradient_weight(harmful_only, tokens.batch())
    kept = gradient_weight(make_objective("dppo_tv", delta=delta), tokens.batch()) == 1
    assert bool((weight[kept] == 1).all()) and bool((weight[~kept] < 0).all())
    torch.testing.assert_close(weight[~kept], gradient_weight(drpo, tokens.batch())[~kept])
    # Read the other way, converging tokens beyond δ are pulled as DRPO pulls them.
    both = gradient_weight(make_objective("mask_drpo", delta=delta, boundary=delta), tokens.batch())
    outside = tokens.shift.abs() > delta
    assert bool((both[~outside] == 1).all())
    torch.testing.assert_close(both[outside], gradient_weight(drpo, tokens.batch())[outside])


@given(tokens=token_batches(), coefficient=st.floats(0.01, 3.0))
def test_mdpo_is_an_unweighted_reverse_kl_penalty(tokens: Tokens, coefficient: float):
    penalty = make_objective("kl_penalty", estimator="reverse", coefficient=coefficient, advantage_weighted=False)
    assert_same(make_objective("mdpo", step_size=1 / coefficient), penalty, tokens, 1e-9)


def test_the_mirror_descent_step_is_where_mdpo_rests():
    mu, step, advantage = 0.2, 0.5, 0.8
    there = tokens_from_probabilities([mu * math.exp(step * advantage)], [mu], [advantage])
    _, slope = loss_and_slope(make_objective("mdpo", step_size=step), there)
    assert abs(float(slope)) < 1e-12


@given(tokens=token_batches())
def test_topk_of_the_sampled_token_alone_is_the_binary_divergence(tokens: Tokens):
    n = len(tokens)
    tokens = dataclasses.replace(tokens, optional={
        "topk_logprobs": tokens.logprobs.unsqueeze(1), "topk_is_sampled": torch.ones(n, 1, dtype=torch.bool),
        "topk_behavior_logprobs": tokens.behavior_logprobs.unsqueeze(1),
    })  # fmt: skip
    tv = binary_tv(tokens.logprobs, tokens.behavior_logprobs)
    kl = binary_kl(tokens.logprobs, tokens.behavior_logprobs)
    assume(bool(((tv - 0.15).abs() > 1e-9).all()) and bool(((kl - 0.05).abs() > 1e-6).all()))
    assert_same(make_objective("dppo_topk_tv"), make_objective("dppo_tv"), tokens, 0.0)
    assert_same(make_objective("dppo_topk_kl"), make_objective("dppo_kl"), tokens, 0.0)


def distributions(seed: int, n: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log π and log μ ``[n, vocabulary]``, close enough that some tokens are inside the bounds."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(n, vocabulary, generator=generator, dtype=torch.float64)
    other = logits + 0.4 * torch.randn(n, vocabulary, generator=generator, dtype=torch.float64)
    return other.log_softmax(1), logits.log_softmax(1)


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
        of_sampled[0], of_sampled[1], advantages.to(dtype),
        topk_logprobs=pi.gather(1, order).to(dtype), topk_behavior_logprobs=mu.gather(1, order).to(dtype),
        topk_is_sampled=order == sampled.unsqueeze(1),
    )  # fmt: skip
    harmful = advantages * (batch.logprobs - batch.behavior_logprobs).double() > 0
    cases: list[tuple[str, torch.Tensor, dict[str, Any], float]] = [
        ("dppo_topk_tv", tv, {"delta": 0.15}, 0.15), ("dppo_topk_kl", kl, {"kl_max": 0.05}, 0.05)
    ]  # fmt: skip
    for name, divergence, bound, limit in cases:
        assert bool(((divergence - limit).abs() > 1e-5).all())
        weight = gradient_weight(make_objective(name, k=vocabulary, **bound), batch)
        assert 20 < int((weight == 0).sum()) < n - 20
        assert weight.double().tolist() == (~(harmful & (divergence > limit))).double().tolist()


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


@given(tokens=token_batches())
def test_topr_imitates_the_good_and_tapers_the_bad(tokens: Tokens):
    weight = gradient_weight(make_objective("topr"), tokens.batch())
    followed = torch.where(tokens.advantages < 0, tokens.ratio.clamp(max=1), 1.0)  # w · r
    torch.testing.assert_close(weight * tokens.ratio, followed, rtol=1e-9, atol=0)


@given(tokens=token_batches())
def test_cppo_with_a_free_budget_and_equal_weights_is_dppo(tokens: Tokens):
    assume(bool(((tokens.shift.abs() - 0.2).abs() > 1e-9).all()))
    cppo = make_objective("cppo", delta=0.2, weight_min=1, budget=1.0)
    assert_same(cppo, make_objective("dppo_tv", delta=0.2), tokens, 0.0)


@given(tokens=token_batches(), delta=st.floats(0.02, 0.9))
def test_at_mu_every_trust_region_is_the_plain_policy_gradient(tokens: Tokens, delta: float):
    here = tokens.at(tokens.behavior_logprobs)
    _, expected = loss_and_slope(make_objective("surrogate"), here)
    for name, parameters in [
        ("drpo", {"delta": delta}),
        ("dppo_tv", {"delta": delta}),
        ("ppo", {}),
        ("spo", {}),
        ("truly_ppo", {}),
        ("cispo", {}),
        ("sapo", {}),
        ("kimi", {}),
        ("dppo_kl", {}),
        ("dppo_topk_tv", {}),
        ("vaco", {}),
        ("cppo", {}),
        ("m2po", {}),
        ("mask_drpo", {}),
        ("kl_penalty", {}),
        ("tv_penalty", {}),
        ("mdpo", {}),
    ]:
        _, slope = loss_and_slope(make_objective(name, **parameters), here)
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=0)


# ---- the geometry of DPPO


@given(tokens=token_batches(), delta=st.floats(0.01, 0.95), zone=st.floats(0.0, 0.95))
def test_tokens_that_drpo_still_pushes_are_those_that_dppo_keeps(tokens: Tokens, delta: float, zone: float):
    assume(bool(((tokens.shift.abs() - delta).abs() > 1e-9).all()))  # on the boundary itself w = 0, and DPPO keeps
    batch = tokens.batch()
    kept = gradient_weight(make_objective("dppo_tv", delta=delta), batch) == 1
    pushed = gradient_weight(make_objective("drpo", delta=delta, deadzone=zone * delta), batch) > 0
    assert pushed.tolist() == kept.tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("zone", [0.0, 0.05])
def test_same_geometry_beyond_the_saturated_ratio(dtype: torch.dtype, zone: float):
    """|π − μ| is right where the ratio cannot be represented: π = 1 from μ = e^-100 is a shift of 1."""
    pi, mu = [0.0, 0.0, -0.1, -100.0, -1000.0], [-100.0, -1000.0, -80.0, 0.0, -0.1]
    for sign in (1.0, -1.0):
        tokens = Tokens(
            torch.tensor(pi).double(),
            torch.tensor(mu).double(),
            torch.full((5,), sign).double(),
            torch.zeros(5, dtype=torch.int64),
        )
        harmful = torch.tensor([sign, sign, sign, -sign, -sign]) > 0
        distance = torch.tensor([1.0, 1.0, math.exp(-0.1), 1.0, math.exp(-0.1)], dtype=dtype)
        torch.testing.assert_close(binary_tv(tokens.logprobs.to(dtype), tokens.behavior_logprobs.to(dtype)), distance)
        weight = gradient_weight(make_objective("drpo", delta=0.15, deadzone=zone), tokens.batch(dtype))
        steep = (distance - zone) / (0.15 - zone)
        torch.testing.assert_close(weight, torch.where(harmful, 1 - steep, 1 + steep))
        mask = gradient_weight(make_objective("dppo_tv", delta=0.15), tokens.batch(dtype))
        torch.testing.assert_close(mask, torch.where(harmful, 0.0, 1.0).to(dtype))


@given(
    mu=probabilities,
    sign=signs,
    size=st.floats(1e-3, 10),
    delta=st.floats(0.02, 0.9),
    zone=st.floats(0.0, 0.9),
)
def test_stationary_point_is_dppos_boundary(mu: float, sign: float, size: float, delta: float, zone: float):
    """It is at μ + sign(Â)·δ: whatever |Â|, μ and the dead zone."""
    objective = make_objective("drpo", delta=delta, deadzone=zone * delta)
    advantage, boundary = sign * size, mu + sign * delta
    assume(1e-3 < boundary < 1 - 1e-3)
    step = 1e-6
    scale = abs(advantage) / (mu * (1 - zone) * delta)  # the curvature of J in π just outside the dead zone
    assert abs(slope_in_pi(objective, boundary, mu, advantage)) < 1e-9 * scale
    # J rises towards the boundary on both sides of it: a maximum.
    assert slope_in_pi(objective, boundary - step, mu, advantage) > 0.5 * step * scale
    assert slope_in_pi(objective, boundary + step, mu, advantage) < -0.5 * step * scale


@given(mu=probabilities, advantage=st.floats(0.05, 5), sign=signs, delta=st.floats(0.02, 0.9))
def test_without_the_advantage_weight_the_region_scales_with_the_advantage(
    mu: float, advantage: float, sign: float, delta: float
):
    objective = make_objective("drpo", delta=delta, advantage_weighted=False)
    boundary = mu + delta * sign * advantage
    assume(1e-3 < boundary < 1 - 1e-3)
    assert abs(slope_in_pi(objective, boundary, mu, sign * advantage)) < 1e-9 / (mu * delta)
    assert slope_in_pi(objective, boundary - 1e-6, mu, sign * advantage) > 0
    assert slope_in_pi(objective, boundary + 1e-6, mu, sign * advantage) < 0


@given(mu=probabilities, delta=st.floats(0.02, 0.9), pis=st.lists(probabilities, min_size=8, max_size=8))
def test_reachability_of_the_boundary(mu: float, delta: float, pis: list[float]):
    """For Â > 0 it can be met only if μ ≤ 1 − δ, for Â < 0 only if μ ≥ δ."""
    assume(abs(mu - delta) > 1e-5 and abs(1 - mu - delta) > 1e-5)
    objective = make_objective("drpo", delta=delta)

    def weights(policy: list[float], advantage: float) -> list[float]:
        tokens = tokens_from_probabilities(policy, [mu] * len(policy), [advantage] * len(policy))
        return gradient_weight(objective, tokens.batch()).tolist()

    highest, lowest = 1 - 1e-7, 1e-7
    if mu > 1 - delta:
        assert min(weights([*pis, highest], 1.0)) > 0
    else:
        assert min(weights([highest], 1.0)) < 0
    if mu < delta:
        assert min(weights([*pis, lowest], -1.0)) > 0
    else:
        assert min(weights([lowest], -1.0)) < 0


@ignore_vacuous_delta
@given(tokens=token_batches(), delta=st.floats(1.0, 20.0))
def test_delta_of_one_or_more_never_holds_a_token_back(tokens: Tokens, delta: float):
    weight = gradient_weight(make_objective("drpo", delta=delta), tokens.batch())
    assert bool((weight > 0).all())
    assert bool(((weight - 1).abs() <= 1 / delta).all())
    assert bool((gradient_weight(make_objective("dppo_tv", delta=delta), tokens.batch()) == 1).all())


@given(tokens=token_batches(), delta=st.floats(0.05, 0.9))
def test_weight_is_bounded_and_decreases_with_harm(tokens: Tokens, delta: float):
    weight = gradient_weight(make_objective("drpo", delta=delta), tokens.batch())
    assert bool(((weight - 1).abs() <= 1 / delta + 1e-9).all())
    signed = torch.where(tokens.harmful, 1.0, -1.0) * tokens.shift.abs()
    order = signed.argsort()
    assert bool((weight[order].diff() <= 1e-9).all())


def test_a_dead_zone_up_to_delta_is_the_hard_constraint():
    """As z → δ: the plain surrogate within |π − μ| ≤ z, and a weight without bound outside δ."""
    mu, delta = 0.4, 0.15
    inside = tokens_from_probabilities([0.5, 0.3, 0.54, 0.26], [mu] * 4, [1.0, -1.0, -1.0, 1.0])
    outside = tokens_from_probabilities([0.56, 0.24], [mu] * 2, [1.0, -1.0])
    surrogate, _ = loss_and_slope(make_objective("surrogate"), inside)
    for gap, at_least in ((1e-3, 9.0), (1e-5, 999.0)):
        objective = make_objective("drpo", delta=delta, deadzone=delta - gap)
        assert gradient_weight(objective, inside.batch()).tolist() == [1.0] * 4
        torch.testing.assert_close(loss_and_slope(objective, inside)[0], surrogate)
        assert max(gradient_weight(objective, outside.batch()).tolist()) < -at_least


def test_expected_penalties_are_the_l2_and_the_chi_squared_divergence():
    """Summed over the actions of a state, each with probability μ."""
    pi, mu = distributions(4, 1, 9)
    pi, mu = pi[0], mu[0]
    advantages = torch.linspace(-2, 1.5, 9, dtype=torch.float64)
    every_action = Tokens(pi, mu, advantages, torch.zeros(9, dtype=torch.int64))
    surrogate, _ = loss_and_slope(make_objective("surrogate"), every_action)
    squares = (pi.exp() - mu.exp()) ** 2 * advantages.abs()
    for objective, expected in (
        (make_objective("drpo", delta=0.2), squares.sum() / 0.4),
        (make_objective("spo", epsilon=0.2), (squares / mu.exp()).sum() / 0.4),
    ):
        penalty = (mu.exp() * (loss_and_slope(objective, every_action)[0] - surrogate)).sum()
        torch.testing.assert_close(penalty, expected)
    rare = tokens_from_probabilities([0.010001], [1e-6], [1.0])
    for name, parameters, expected in (("drpo", {"delta": 0.5}, 1e-4), ("spo", {"epsilon": 0.5}, 100.0)):
        given: dict[str, Any] = parameters
        loss, plain = (loss_and_slope(o, rare)[0] for o in (make_objective(name, **given), make_objective("surrogate")))
        assert float(loss - plain) * 1e-6 == pytest.approx(expected, rel=1e-9)


@given(
    r=st.floats(0.05, 15.0), scale=st.floats(0.01, 1.0), sign=signs, size=st.floats(0.1, 5.0), beta=st.floats(0.01, 3.0)
)
def test_kl_penalties_have_ratio_space_weights(r: float, scale: float, sign: float, size: float, beta: float):
    """The weight of the same ratio is the same for a common and for a rare token."""
    common, rare = min(0.9, 0.9 / r), min(0.9, 0.9 / r) * scale * 1e-3
    expected = {
        "k1": 1 + beta * sign / r, "k2": 1 - beta * sign * math.log(r) / r, "k3": 1 - beta * sign * (1 - 1 / r),
        "reverse": 1 - beta * sign * math.log(r),
    }  # fmt: skip
    for estimator, weight in expected.items():
        objective = make_objective("kl_penalty", estimator=estimator, coefficient=beta)
        tokens = tokens_from_probabilities([r * common, r * rare], [common, rare], [sign * size] * 2)
        found = gradient_weight(objective, tokens.batch()).tolist()
        assert found == pytest.approx([weight] * 2, rel=1e-6, abs=1e-6)
        if estimator == "k3" and sign > 0:
            assert min(found) >= 1 - beta - 1e-6
    here = tokens_from_probabilities([0.4], [0.4], [sign * size])
    k1 = make_objective("kl_penalty", estimator="k1", coefficient=beta)
    assert float(gradient_weight(k1, here.batch())) == pytest.approx(1 + beta * sign)


@given(tokens=token_batches(), beta=st.floats(0.01, 3.0))
def test_a_tv_penalty_has_two_weights(tokens: Tokens, beta: float):
    moved = tokens.select(tokens.logprobs != tokens.behavior_logprobs)
    weight = gradient_weight(make_objective("tv_penalty", coefficient=beta), moved.batch())
    torch.testing.assert_close(weight, torch.where(moved.harmful, 1 - beta, 1 + beta).double(), rtol=1e-6, atol=1e-6)


# ---- the released formula


def released(log_pi: torch.Tensor, log_mu: torch.Tensor, advantages: torch.Tensor, delta: float):
    """arXiv:2606.09821 Eq. 8–9 as printed, in float64: J and ∂J/∂log π, each with the scale of its terms."""
    pi, mu = log_pi.double().exp(), log_mu.double().exp()
    gain = pi / mu * advantages.double()
    penalty = advantages.double().abs() / (2 * delta) * mu * (pi / mu - 1) ** 2
    away = torch.sign(advantages.double() * (pi / mu - 1)) * (pi - mu).abs() / delta
    return gain - penalty, gain.abs() + penalty, gain * (1 - away), gain.abs() * (1 + away.abs())


@ignore_vacuous_delta
@pytest.mark.parametrize("delta", [0.15, 12.5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)], ids=str)
def test_the_released_formula_on_a_million_tokens(dtype: torch.dtype, tolerance: float, delta: float):
    n = 1_000_000
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)

    log_mu = torch.nn.functional.logsigmoid(uniform(-18.42068, 16.11809))  # μ from 1e-8 to 1 − 1e-7
    steps = torch.where(uniform(0, 1) < 0.5, uniform(-20, 20), uniform(-0.01, 0.01))
    log_pi = (log_mu + steps).clamp(max=0)  # log-ratios within ±20
    advantages = uniform(-1, 1).sign() * uniform(-6, 2).exp()
    # Both sides see the same rounded inputs: what is compared is the formula, not the storage of arguments.
    log_pi, log_mu, advantages = log_pi.to(dtype), log_mu.to(dtype), advantages.to(dtype)

    batch = TokenBatch(log_pi.clone().requires_grad_(True), log_mu, advantages)
    loss = make_objective("drpo", delta=delta)(batch).loss
    (slope,) = torch.autograd.grad(loss.sum(), batch.logprobs)
    value, value_scale, gradient, gradient_scale = released(log_pi, log_mu, advantages, delta)
    # Relative to the sum of the sizes of the terms: the terms themselves cancel wherever J or w crosses zero.
    assert float(((-loss.detach().double() - value).abs() / value_scale).max()) < tolerance
    assert float(((-slope.double() - gradient).abs() / gradient_scale).max()) < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_beyond_the_released_clamp_the_gradient_lives_on(dtype: torch.dtype):
    tokens = Tokens(
        torch.tensor([-31.0, -31.0, -0.01]).double(),
        torch.tensor([-1.0, -1.0, -30.0]).double(),
        torch.tensor([1.0, -1.0, 1.0]).double(),
        torch.zeros(3, dtype=torch.int64),
    )
    _, slope = loss_and_slope(make_objective("drpo", delta=0.3), tokens, dtype)
    _, _, gradient, _ = released(tokens.logprobs, tokens.behavior_logprobs, tokens.advantages, 0.3)
    torch.testing.assert_close(-slope.double(), gradient, rtol=1e-5, atol=0)


# ---- the warning of a boundary that is none


@pytest.fixture
def fresh_warning() -> Iterator[None]:
    regularized._warn_vacuous_delta.cache_clear()
    yield
    regularized._warn_vacuous_delta.cache_clear()


@pytest.mark.usefixtures("fresh_warning")
def test_drpo_warns_once_that_delta_of_one_or_more_is_vacuous():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        regularized.DRPO(delta=1.0)
        regularized.DRPO(delta=12.5)
        make_objective("drpo", delta=12.5)
    assert [(warning.category, warning.filename) for warning in seen] == [(DrpoWarning, __file__)]
    text = str(seen[0].message)
    assert "delta ≥ 1 is no boundary" in text and "|π − μ| never exceeds 1" in text and "Use delta < 1" in text


@pytest.mark.usefixtures("fresh_warning")
@pytest.mark.parametrize("delta", [1, 1.0, 12.5])
def test_the_warning_starts_at_one(delta: float):
    with pytest.warns(DrpoWarning, match="delta ≥ 1"):
        make_objective("drpo", delta=delta)


@pytest.mark.usefixtures("fresh_warning")
def test_no_warning_below_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_objective("drpo")
        make_objective("drpo", delta=0.999, deadzone=0.5)
        make_objective("dppo_tv", delta=12.5)  # a hard mask that is off is not a boundary that misleads


# ---- the divergences themselves


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


@given(tokens=token_batches(zero_advantages=True))
def test_zero_advantage_has_no_gradient(tokens: Tokens):
    """… where the objective scales with the advantage: a group without a signal does not move the policy."""
    still = dataclasses.replace(tokens, advantages=torch.zeros(len(tokens), dtype=torch.float64))
    for name in sorted(OBJECTIVES):
        if not make_objective(name).homogeneous:
            continue
        loss, slope = loss_and_slope(make_objective(name), still)
        assert not bool(slope.any()) and not bool(loss.any())
