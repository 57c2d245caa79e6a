"""How the objectives relate to each other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from drpo import OBJECTIVES, gradient_weight, make_objective
from support.batches import Tokens, random_tokens, token_batches, tokens_from_probabilities
from support.slopes import assert_same, loss_and_slope

pytestmark = pytest.mark.slow

ignore_vacuous_delta = pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning")

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
        ("icepop", {"low": 0, "high": 1e30}, 0.0),
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
    gmpo, ppo = (
        make_objective("gmpo", log_ratio_max=0.2),
        make_objective("ppo", ratio_low=1 - math.exp(-0.2), ratio_high=math.exp(0.2) - 1),
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


@given(tokens=token_batches(), delta=st.floats(0.02, 0.9))
def test_ipo_is_dppo_that_drops_converging_tokens_too(tokens: Tokens, delta: float):
    cap: dict[str, Any] = {"ratio_cap": 3.0}
    ipo, dppo = make_objective("ipo", delta=delta, **cap), make_objective("dppo_tv", delta=delta, **cap)
    ours, theirs = gradient_weight(ipo, tokens.batch()), gradient_weight(dppo, tokens.batch())
    converging_beyond = ~tokens.diverging & (tokens.shift.abs() > delta)
    assert bool((ours[converging_beyond] == 0).all()) and bool((theirs[converging_beyond] > 0).all())
    assert torch.equal(ours[~converging_beyond], theirs[~converging_beyond])


@given(tokens=token_batches())
def test_masks_of_the_ratio_differ_in_value_and_not_in_gradient(tokens: Tokens):
    _, icepop = loss_and_slope(make_objective("icepop", low=0.5, high=1.75), tokens)
    _, rollout_is = loss_and_slope(make_objective("rollout_is", ratio_low=0.5, ratio_high=0.75), tokens)
    torch.testing.assert_close(rollout_is, icepop, rtol=1e-12, atol=0)
    ring = {"ratio_low": 0.5, "ratio_high": 0.75, "outer_low": 0.5, "outer_high": 0.75, "importance_sampling": True}
    _, ppo = loss_and_slope(make_objective("ppo", ratio_low=0.5, ratio_high=0.75), tokens)
    _, rec_ring = loss_and_slope(make_objective("rec_ring", **ring), tokens)
    torch.testing.assert_close(rec_ring, ppo, rtol=1e-12, atol=0)  # a ring without width: only diverging tokens


@given(tokens=token_batches(), beta=st.floats(0.01, 2.0))
def test_dro_is_kimi_without_the_ratio_in_front(tokens: Tokens, beta: float):
    """The same penalty; the first terms differ by Â(r − 1), which is 0 at r = 1 alone."""
    _, dro = loss_and_slope(make_objective("dro", beta=beta), tokens)
    _, kimi = loss_and_slope(make_objective("kimi", log_ratio_max=100.0, coefficient=beta / 2), tokens)
    torch.testing.assert_close(dro - kimi, tokens.advantages * (tokens.ratio - 1), rtol=1e-9, atol=1e-9)


@given(tokens=token_batches())
def test_fipo_without_an_influence_is_grpo_and_luspo_is_gspo_times_length(tokens: Tokens):
    assert_same(make_objective("fipo", influence_high=0), make_objective("grpo"), tokens, 0.0)
    lengths = torch.bincount(tokens.sequence_ids)[tokens.sequence_ids]
    gspo, luspo = make_objective("gspo")(tokens.batch()).loss, make_objective("luspo")(tokens.batch()).loss
    torch.testing.assert_close(luspo, lengths * gspo, rtol=1e-12, atol=0)


@given(tokens=token_batches())
def test_covariances_that_choose_nothing_leave_ppo_and_the_surrogate(tokens: Tokens):
    nothing = make_objective("clip_cov", covariance_low=1e30, covariance_high=1e31)
    assert_same(nothing, make_objective("ppo"), tokens, 0.0)
    assert_same(make_objective("kl_cov", coefficient=0), make_objective("surrogate"), tokens, 0.0)


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
    # Diverging tokens beyond δ are corrective, and all that DPPO keeps is the plain surrogate.
    diverging_only = make_objective("mask_drpo", delta=delta, boundary=delta, diverging_only=True)
    weight = gradient_weight(diverging_only, tokens.batch())
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


@given(tokens=token_batches(zero_advantages=True))
def test_zero_advantage_has_no_gradient(tokens: Tokens):
    """… where the objective scales with the advantage: a group without a signal does not move the policy."""
    still = dataclasses.replace(tokens, advantages=torch.zeros(len(tokens), dtype=torch.float64))
    for name in sorted(OBJECTIVES):
        if not make_objective(name).homogeneous:
            continue
        loss, slope = loss_and_slope(make_objective(name), still)
        assert not bool(slope.any()) and not bool(loss.any())
