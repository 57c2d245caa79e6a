"""Objectives side by side, and the names that hosts use for them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from drpo import OBJECTIVES, fused_loss, make_objective
from drpo.errors import ConfigError
from drpo.objectives.aliases import ALIASES
from drpo.objectives.comparison import LIMITS, POINTS, compare, limit


def test_weights_and_limits_are_those_of_the_formulas() -> None:
    names = ("drpo", "ipo", "dppo_tv", "grpo", "spo", "cispo", "topr", "mdpo", "m2po", "gspo", "minirl")
    found = compare({name: make_objective(name) for name in names})
    drpo, spo = found["drpo"], found["spo"]
    assert drpo.weights["μ = 0.5, r = 1.5, Â > 0"] == pytest.approx(1 - 0.25 / 0.15)
    assert drpo.weights["μ = 0.01, r = 20, Â < 0"] == pytest.approx(1 + 0.19 / 0.15)
    assert drpo.limits["r → ∞ (π = 0.5), Â > 0"] == pytest.approx(1 - 0.5 / 0.15, abs=1e-5)
    assert drpo.limits["μ → 0 (r = 2), Â > 0"] == 1 and found["grpo"].limits["μ → 0 (r = 2), Â > 0"] == 0
    assert spo.limits["r → ∞ (π = 0.5), Â > 0"] == -math.inf and spo.limits["r → ∞ (π = 0.5), Â < 0"] == math.inf
    assert spo.limits["r → 0 (μ = 0.5), Â > 0"] == pytest.approx(6, abs=1e-5)
    assert found["cispo"].limits["r → ∞ (π = 0.5), Â > 0"] == 0
    assert found["topr"].limits["r → 0 (μ = 0.5), Â > 0"] == math.inf
    assert found["mdpo"].limits["r → ∞ (π = 0.5), Â > 0"] == -math.inf  # as slowly as a logarithm
    assert found["ipo"].limits["r → 0 (μ = 0.5), Â > 0"] == 0 and found["dppo_tv"].limits["r → 0 (μ = 0.5), Â > 0"] == 1
    assert (drpo.decides, found["gspo"].decides, found["m2po"].decides) == ("token", "sequence", "update")
    assert (drpo.head_products, found["gspo"].head_products, found["m2po"].head_products) == (3, 4, 4)
    assert set(found["m2po"].weights.values()) | set(found["m2po"].limits.values()) == {None}
    assert found["minirl"].needs == ("proximal_logprobs",) and not found["mdpo"].homogeneous


class Products(TorchDispatchMode):
    """Counts the matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["drpo", "grpo", "gspo", "m2po", "vespo"])
def test_fused_loss_makes_as_many_products_with_the_head_as_the_profile_says(name: str) -> None:
    objective = make_objective(name)
    hidden, weight = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    with Products() as products:
        found = fused_loss(
            hidden,
            weight,
            torch.arange(6),
            objective,
            behavior_logprobs=torch.full((6,), -2.0),
            advantages=torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]),
            sequence_ids=torch.tensor([0, 0, 0, 1, 1, 1]),
        )
        found.loss.backward()
    assert products.count == compare({name: objective})[name].head_products


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_profile_without_a_nan(name: str) -> None:
    found = compare({name: make_objective(name)})[name]
    assert len(found.weights) == 2 * len(POINTS) and len(found.limits) == 2 * len(LIMITS)
    assert not any(
        value is not None and math.isnan(value) for value in (*found.weights.values(), *found.limits.values())
    )


def test_a_limit_is_where_the_steps_shrink() -> None:
    assert limit([0.9, 0.99, 0.999]) == 0.999 and limit([1.0, 1.0, 1.0]) == 1.0
    assert limit([-1.0, -2.0, -3.0]) == -math.inf and limit([1e3, 1e6, 1e9]) == math.inf


@pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: f"{alias.host}-{alias.setting}")
def test_an_alias_makes_an_objective(alias) -> None:
    assert make_objective(alias.name, **alias.parameters).name == alias.name


def test_a_name_of_a_host_says_what_it_is_here() -> None:
    with pytest.raises(ConfigError, match=r"unknown objective 'gpg'\. verl 0\.9\.1 calls dro\(beta=0\) gpg\. Known: "):
        make_objective("gpg")
    with pytest.raises(ConfigError, match=r"unknown objective 'rollout-is'\. SkyRL calls rollout_is rollout_is\."):
        make_objective("rollout-is")
