"""The claims of docs/geometry.md, and the released formula."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from drpo import TokenBatch, gradient_weight, make_objective
from drpo.divergence import (
    binary_tv,
)
from drpo.errors import DrpoWarning
from drpo.objectives import regularized
from support.batches import Tokens, token_batches, tokens_from_probabilities
from support.slopes import distributions, loss_and_slope, slope_in_pi

pytestmark = pytest.mark.slow

ignore_vacuous_delta = pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning")
probabilities = st.floats(1e-6, 1 - 1e-6)
signs = st.sampled_from([-1.0, 1.0])

# ---- the same geometry as DPPO


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
        diverging = torch.tensor([sign, sign, sign, -sign, -sign]) > 0
        distance = torch.tensor([1.0, 1.0, math.exp(-0.1), 1.0, math.exp(-0.1)], dtype=dtype)
        torch.testing.assert_close(binary_tv(tokens.logprobs.to(dtype), tokens.behavior_logprobs.to(dtype)), distance)
        weight = gradient_weight(make_objective("drpo", delta=0.15, deadzone=zone), tokens.batch(dtype))
        steep = (distance - zone) / (0.15 - zone)
        torch.testing.assert_close(weight, torch.where(diverging, 1 - steep, 1 + steep))
        mask = gradient_weight(make_objective("dppo_tv", delta=0.15), tokens.batch(dtype))
        torch.testing.assert_close(mask, torch.where(diverging, 0.0, 1.0).to(dtype))


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
    signed = torch.where(tokens.diverging, 1.0, -1.0) * tokens.shift.abs()
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
        "k1": 1 + beta * sign / r,
        "k2": 1 - beta * sign * math.log(r) / r,
        "k3": 1 - beta * sign * (1 - 1 / r),
        "reverse": 1 - beta * sign * math.log(r),
    }
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
    torch.testing.assert_close(weight, torch.where(moved.diverging, 1 - beta, 1 + beta).double(), rtol=1e-6, atol=1e-6)


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
    assert "delta ≥ 1" in text and "|π − μ| never exceeds 1" in text and "Use delta < 1" in text


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
