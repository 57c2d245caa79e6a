"""Metrics, aggregation, advantages and diagnostics: numbers by hand, and merging that stays exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drpo import Metric, TokenBatch, aggregate, diagnose, gradient_weight, group_advantages, make_objective
from drpo.aggregation import Mode
from drpo.diagnostics import quantile, verdicts
from drpo.errors import ConfigError, DataError, suggest
from drpo.metrics import Maximum, Minimum
from support.batches import Tokens, random_tokens, token_batches, tokens_from_probabilities

values_and_cut = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20).flatmap(
    lambda values: st.tuples(st.just(values), st.integers(0, len(values)))
)


# ---- metrics


@given(values_and_cut)
def test_metrics_of_parts_merge_to_that_of_the_whole(drawn: tuple[list[float], int]):
    values, cut = drawn
    tensor = torch.tensor(values, dtype=torch.float64)
    size = max(abs(value) for value in values)
    for cls, expected in ((Metric, np.mean(values)), (Maximum, max(values)), (Minimum, min(values))):
        merged = cls.of(tensor[:cut]) + cls.of(tensor[cut:])
        assert type(merged) is cls
        assert merged.item() == pytest.approx(expected, rel=1e-12, abs=1e-12 * size)
        assert float(merged.count) == len(values)


def test_a_metric_is_a_weighted_mean_not_a_mean_of_means():
    merged = Metric.of(torch.tensor([1.0, 2.0, 3.0])) + Metric.of(torch.tensor([10.0]))
    assert merged.item() == 4.0
    assert (Metric(6.0, 3.0) + Metric(10.0, 1)).item() == 4.0


@pytest.mark.parametrize("cls", [Metric, Maximum, Minimum])
def test_nothing_counted_is_nan_and_neutral(cls: type[Metric]):
    nothing = torch.zeros(0)
    assert math.isnan(cls.of(nothing).item())
    assert math.isnan((cls.of(nothing) + cls.of(nothing)).item())
    for merged in (
        cls.of(nothing) + cls.of(torch.tensor([-3.0])),
        cls.of(torch.tensor([-3.0])) + cls.of(nothing),
    ):
        assert merged.item() == -3.0


@pytest.mark.parametrize(("cls", "expected"), [(Metric, 2.0), (Maximum, 3.0), (Minimum, 1.0)])
def test_where_restricts(cls: type[Metric], expected: float):
    values = torch.tensor([1.0, math.nan, 3.0, 99.0, -99.0])
    where = torch.tensor([True, False, True, False, False])
    metric = cls.of(values, where)
    assert (metric.item(), float(metric.count)) == (expected, 2.0)
    assert math.isnan(cls.of(values, torch.zeros(5) > 0).item())


@pytest.mark.parametrize("cls", [Metric, Maximum, Minimum])
def test_a_nan_is_never_lost_in_merging(cls: type[Metric]):
    bad, good = cls.of(torch.tensor([1.0, math.nan])), cls.of(torch.tensor([2.0]))
    assert math.isnan((bad + good).item()) and math.isnan((good + bad).item())


def test_metrics_take_booleans_and_narrow_floats_and_hold_no_graph():
    assert Metric.of(torch.tensor([True, False, False, True])).item() == 0.5
    # 1001 is no bfloat16.
    assert Metric.of(torch.ones(1001, dtype=torch.bfloat16)).item() == 1.0
    leaf = torch.ones(3, requires_grad=True)
    for cls in (Metric, Maximum, Minimum):
        total = cls.of(leaf).sum
        assert type(total) is float


def test_extremes_of_plain_floats():
    assert (Maximum(0.1, 1) + Maximum(1 / 3, 1)).item() == 1 / 3
    assert (Minimum(0.1, 1) + Minimum(1 / 3, 1)).item() == 0.1


# ---- aggregation

IDS = [0, 0, 0, 4, 7, 7]
LOSSES = [1.0, 2.0, 6.0, 10.0, -4.0, -6.0]


def six_tokens(n: int = 6) -> tuple[torch.Tensor, TokenBatch]:
    zeros = torch.zeros(n, dtype=torch.float64)
    return torch.tensor(LOSSES[:n], dtype=torch.float64), TokenBatch(
        zeros, zeros, zeros, sequence_ids=torch.tensor(IDS[:n], dtype=torch.int64)
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 1.5),  # 9/6
        ({"mode": "token_mean"}, 1.5),
        ({"mode": "token_mean", "denominator": 18}, 0.5),
        ({"mode": "sequence_mean"}, 8 / 3),  # (3 + 10 − 5)/3
        ({"mode": "sequence_mean", "denominator": 4}, 2.0),
        ({"mode": "sequence_sum", "horizon": 10}, 0.3),  # (.9 + 1 − 1)/3
        ({"mode": "sequence_sum", "horizon": 10, "denominator": 2}, 0.45),
        ({"mode": "sequence_sum", "horizon": 10, "denominator": torch.tensor(2.0)}, 0.45),
    ],
)
def test_aggregation_by_hand(arguments: dict[str, Any], expected: float):
    values, batch = six_tokens()
    out = aggregate(values, batch, **arguments)
    assert out.shape == ()
    assert float(out) == pytest.approx(expected, rel=1e-12)


def test_aggregation_gradients_are_the_weights_of_the_tokens():
    cases: list[tuple[Mode, int | None, list[float]]] = [
        ("token_mean", None, [1 / 6] * 6),
        ("sequence_mean", None, [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6]),
        ("sequence_sum", 5, [1 / 15] * 6),
    ]
    for mode, horizon, expected in cases:
        values, batch = six_tokens()
        values.requires_grad_(True)
        aggregate(values, batch, mode, horizon=horizon).backward()
        assert values.grad is not None
        assert values.grad.tolist() == pytest.approx(expected, rel=1e-12)


def test_an_empty_micro_batch_counts_nothing():
    values, batch = six_tokens(0)
    cases: list[tuple[Mode, int | None]] = [
        ("token_mean", None),
        ("sequence_mean", None),
        ("sequence_sum", 3),
    ]
    for mode, horizon in cases:
        assert float(aggregate(values, batch, mode, 8, horizon)) == 0.0
        with pytest.raises(DataError, match="an empty batch has no mean; pass the denominator of the whole update"):
            aggregate(values, batch, mode, horizon=horizon)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mode": "tokens_mean"},
            r"unknown aggregation mode 'tokens_mean'\. Did you mean 'token_mean'\? Known: sequence_mean, seq",
        ),
        (
            {"mode": "sequence_sum"},
            r"sequence_sum needs horizon > 0 \(tokens; the maximum response length\), got None",
        ),
        ({"mode": "sequence_sum", "horizon": 0}, r"sequence_sum needs horizon > 0 .* got 0"),
        ({"mode": "sequence_sum", "horizon": -5}, r"sequence_sum needs horizon > 0 .* got -5"),
        ({"mode": "sequence_sum", "horizon": math.nan}, r"sequence_sum needs horizon > 0 .* got nan"),
        (
            {"mode": "token_mean", "horizon": 5},
            r"horizon is for sequence_sum only; token_mean would ignore it\. Remove it",
        ),
        (
            {"mode": "sequence_mean", "horizon": 5},
            r"horizon is for sequence_sum only; sequence_mean would ignore it",
        ),
        ({"denominator": 0}, r"denominator must be positive, got 0"),
        ({"denominator": -2.0}, r"denominator must be positive, got -2.0"),
        ({"denominator": math.nan}, r"denominator must be positive, got nan"),
    ],
)
def test_aggregation_settings_are_checked(arguments: dict[str, Any], message: str):
    values, batch = six_tokens()
    with pytest.raises(ConfigError, match=message):
        aggregate(values, batch, **arguments)


@pytest.mark.parametrize("shape", [(), (5,), (6, 1), (1, 6)])
def test_aggregation_checks_the_shape(shape: tuple[int, ...]):
    _, batch = six_tokens()
    with pytest.raises(DataError, match=r"values must be \[N\] = \[6\], got "):
        aggregate(torch.zeros(shape), batch)


# ---- advantages

# Groups in any order: 7 has rewards 1, 0, .5; 3 has 1, 0; 5 has one response.
REWARDS = torch.tensor([1.0, 1.0, 0.0, 2.0, 0.0, 0.5], dtype=torch.float64)
GROUPS = torch.tensor([7, 3, 7, 5, 3, 7])


@pytest.mark.parametrize(
    ("kind", "epsilon", "expected"),
    [
        ("group_mean", 1e-6, [0.5, 0.5, -0.5, 0.0, -0.5, 0.0]),
        # Standard deviations √(.5/2) = .5 and √(.5/1) = .70710678
        ("standardized", 0.0, [1.0, 0.7071067811865, -1.0, math.nan, -0.7071067811865, 0.0]),
        ("standardized", 0.5, [0.5, 0.4142135623731, -0.5, 0.0, -0.4142135623731, 0.0]),
        # 1 − .25, 1 − 0, 0 − .75, –, 0 − 1, .5 − .5
        ("leave_one_out", 1e-6, [0.75, 1.0, -0.75, 0.0, -1.0, 0.0]),
    ],
)
def test_advantages_by_hand(kind: Any, epsilon: float, expected: list[float]):
    advantages = group_advantages(REWARDS, GROUPS, kind, epsilon)
    assert advantages.dtype == torch.float64
    assert advantages.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15, nan_ok=True)
    narrow = group_advantages(REWARDS.float(), GROUPS, kind, epsilon)
    assert narrow.dtype == torch.float32
    assert narrow.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-7, nan_ok=True)


def test_the_default_is_the_group_mean_and_epsilon_is_small():
    assert torch.equal(group_advantages(REWARDS, GROUPS), group_advantages(REWARDS, GROUPS, "group_mean"))
    assert float(group_advantages(REWARDS, GROUPS, "standardized")[0]) == pytest.approx(0.5 / 0.500001, rel=1e-9)


@pytest.mark.parametrize("kind", ["group_mean", "standardized", "leave_one_out"])
@given(data=st.data())
def test_advantages_do_not_depend_on_order_ids_or_the_level_of_the_rewards(kind: Any, data: st.DataObject):
    rewards = torch.tensor(data.draw(st.lists(st.floats(-5, 5), min_size=1, max_size=12)), dtype=torch.float64)
    n = len(rewards)
    groups = torch.tensor(data.draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)))
    order = torch.tensor(data.draw(st.permutations(range(n))))
    epsilon = 1e-3  # groups of almost equal rewards are then well conditioned
    expected = group_advantages(rewards, groups, kind, epsilon)

    def agree(other: torch.Tensor, same: torch.Tensor) -> None:
        torch.testing.assert_close(group_advantages(other, same, kind, epsilon), expected, rtol=1e-9, atol=1e-9)

    back = order.argsort()
    shuffled = group_advantages(rewards[order], groups[order], kind, epsilon)[back]
    torch.testing.assert_close(shuffled, expected, rtol=1e-9, atol=1e-9)
    agree(rewards, 100 - 7 * groups)
    agree(rewards + 3, groups)
    for group in groups.unique():
        assert abs(float(expected[groups == group].sum())) < 1e-6


@pytest.mark.parametrize("kind", ["group_mean", "standardized", "leave_one_out"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_equal_rewards_give_exactly_zero(kind: Any, dtype: torch.dtype):
    """Not the rounding error of their mean, which a division by the standard deviation would blow up."""
    level = (100 * torch.rand(300, generator=torch.Generator().manual_seed(0))).to(dtype)
    for size in (1, 2, 3, 7):
        groups = torch.arange(300).repeat_interleave(size)
        advantages = group_advantages(level.repeat_interleave(size), groups, kind)
        assert not bool(advantages.any())


def test_no_responses():
    assert group_advantages(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("rewards", "groups", "kind", "error", "message"),
    [
        (
            REWARDS,
            GROUPS,
            "group_men",
            ConfigError,
            r"unknown advantage kind 'group_men'\. Did you mean 'group_mean'\? Known: group_mean, leave_",
        ),
        (REWARDS, GROUPS[:5], "group_mean", DataError, r"must both be \[R\], got \[6\] and \[5\]"),
        (
            REWARDS.view(2, 3),
            GROUPS.view(2, 3),
            "group_mean",
            DataError,
            r"must be \[R\], one a response, got \[2, 3\]; .* rewards\.flatten\(\)",
        ),
        (REWARDS.view(2, 3), 3, "group_mean", DataError, r"got \[2, 3\]; .* rewards\.flatten\(\) and the group size"),
        (
            REWARDS.index_fill(0, torch.tensor([2]), math.nan),
            GROUPS,
            "group_mean",
            DataError,
            "rewards must be finite",
        ),
        (
            REWARDS.index_fill(0, torch.tensor([2]), math.inf),
            GROUPS,
            "group_mean",
            DataError,
            "rewards must be finite",
        ),
        (
            REWARDS.long(),
            GROUPS,
            "group_mean",
            DataError,
            r"got torch.int64 and torch.int64; convert with \.float\(\)",
        ),
        (REWARDS > 0, GROUPS, "group_mean", DataError, r"rewards must be floating point .* got torch.bool"),
        (
            REWARDS,
            GROUPS.float(),
            "group_mean",
            DataError,
            r"group_ids int64, got torch.float64 and torch.float32",
        ),
    ],
)
def test_advantages_check_their_input(
    rewards: torch.Tensor, groups: torch.Tensor | int, kind: Any, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        group_advantages(rewards, groups, kind)


# ---- diagnostics


def diagnosed() -> Tokens:
    """r = 1.5, .25, 3, 1.5, 1, 1e4 and shifts .1, −.3, .6, .2, 0, .0 (rare)."""
    return tokens_from_probabilities(
        pi=[0.3, 0.1, 0.9, 0.6, 0.5, 0.005],
        mu=[0.2, 0.4, 0.3, 0.4, 0.5, 5e-7],
        advantages=[1.0, -2.0, -0.5, 0.5, 0.0, 1.0],
    )


def test_diagnose_by_hand():
    found = {name: metric.item() for name, metric in diagnose(diagnosed().batch(), delta=0.15).items()}
    mismatch = [math.log(1.5), math.log(4), math.log(3), math.log(1.5), 0.0, math.log(1e4)]
    expected = {
        "ratio": (1.5 + 0.25 + 3 + 1.5 + 1 + 1e4) / 6,
        "ratio_min": 0.25,
        "ratio_max": 1e4,
        "shift": (0.1 + 0.3 + 0.6 + 0.2 + 0 + 0.0049995) / 6,
        "shift_max": 0.6,
        "beyond_delta": 3 / 6,
        "beyond_delta_positive": 1 / 3,
        "beyond_delta_negative": 2 / 2,
        "beyond_delta_diverging": 2 / 4,
        "beyond_delta_converging": 1 / 1,
        "diverging_share": 4 / 6,  # the first, second, fourth and last
        "diverging_share_positive": 3 / 3,
        "diverging_share_negative": 1 / 2,
        "mismatch": sum(mismatch) / 6,
        "mismatch_max": math.log(1e4),
        "k3_kl": (
            0.5
            - 0.75
            + 2
            + 0.5
            + 0
            + 9999
            - (3 * math.log(1.5) - math.log(1.5) + math.log(0.25) + math.log(3) + math.log(1e4))
        )
        / 6,
        "rare_share": 1 / 6,
        "saturated_share": 0.0,
    }
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("delta", "share"), [(0.01, 4 / 6), (0.101, 3 / 6), (0.21, 2 / 6), (0.31, 1 / 6), (0.61, 0.0)])
def test_diagnose_measures_against_the_delta_it_is_given(delta: float, share: float):
    assert diagnose(diagnosed().batch(), delta)["beyond_delta"].item() == pytest.approx(share)


def test_diagnose_with_an_objective():
    batch = diagnosed().batch()
    weights = [1 / 3, -1.0, 5.0, -1 / 3, 1 - 0.0049995 / 0.15]
    found = {name: metric.item() for name, metric in diagnose(batch, 0.15, make_objective("drpo")).items()}
    assert found["weight"] == pytest.approx(sum(weights) / 5, rel=1e-9)
    assert found["weight_diverging"] == pytest.approx((weights[0] + weights[1] + weights[3] + weights[4]) / 4)
    assert found["weight_converging"] == pytest.approx(5.0)
    assert found["corrective_share"] == pytest.approx(2 / 5)
    assert (found["corrective_share_positive"], found["corrective_share_negative"]) == pytest.approx((1 / 3, 1 / 2))
    assert found["corrective_mass"] == pytest.approx(1.25 / 10004.25)  # Σ|Âr| = 1.5 + .5 + 1.5 + .75 + 1e4
    assert found["masked_share"] == found["masked_mass"] == found["masked_share_positive"] == 0.0
    found = {name: metric.item() for name, metric in diagnose(batch, 0.15, make_objective("dppo_tv")).items()}
    assert (found["weight"], found["corrective_share"], found["masked_share"]) == pytest.approx((3 / 5, 0, 2 / 5))
    assert (found["masked_share_positive"], found["masked_share_negative"]) == pytest.approx((1 / 3, 1 / 2))
    assert (found["masked_mass"], found["corrective_mass"]) == pytest.approx((1.25 / 10004.25, 0))
    assert set(found) - set(diagnose(batch, 0.15)) == {
        "weight",
        "weight_diverging",
        "weight_converging",
        "corrective_share",
        "corrective_share_positive",
        "corrective_share_negative",
        "corrective_mass",
        "masked_share",
        "masked_share_positive",
        "masked_share_negative",
        "masked_mass",
    }


def test_verdicts_of_several_objectives_on_the_same_batch():
    batch = diagnosed().batch()
    found = verdicts(batch, {name: make_objective(name) for name in ("surrogate", "ppo", "drpo")})
    values = {label: {name: metric.item() for name, metric in of.items()} for label, of in found.items()}
    shares = {"corrective_share": 0, "masked_share": 0, "corrective_mass": 0, "masked_mass": 0}
    assert values["surrogate"] == shares
    # PPO drops the first, the second, the fourth and the last: the diverging ones, outside 1 ± .2.
    assert values["ppo"] == pytest.approx({**shares, "masked_share": 4 / 5, "masked_mass": 1 - 1.5 / 10004.25})
    alone = diagnose(batch, 0.15, make_objective("drpo"))
    assert values["drpo"] == {name: alone[name].item() for name in shares}


@given(tokens=token_batches(zero_advantages=True), cut=st.integers(0, 12))
def test_diagnoses_of_parts_merge(tokens: Tokens, cut: int):
    objective = make_objective("drpo", delta=0.2)
    parts = [tokens.select(torch.arange(len(tokens)) < cut), tokens.select(torch.arange(len(tokens)) >= cut)]
    one, other = (diagnose(part.batch(), 0.2, objective) for part in parts)
    whole = diagnose(tokens.batch(), 0.2, objective)
    assert set(one) == set(other) == set(whole)
    merged = {name: (one[name] + other[name]).item() for name in whole}
    assert merged == pytest.approx({name: metric.item() for name, metric in whole.items()}, rel=1e-9, nan_ok=True)
    assert all(not (isinstance(m.sum, torch.Tensor) and m.sum.requires_grad) for m in whole.values())


def test_diagnose_counts_saturated_ratios_and_reports_the_true_mismatch():
    tokens = Tokens(
        torch.tensor([-1.0, -100.0, -41.5]).double(),
        torch.tensor([-1.0, -0.5, -1.0]).double(),
        torch.ones(3).double(),
        torch.zeros(3, dtype=torch.int64),
    )
    found = diagnose(tokens.batch())
    assert found["saturated_share"].item() == pytest.approx(2 / 3)
    assert found["mismatch_max"].item() == 99.5
    assert found["ratio_min"].item() == pytest.approx(math.exp(-40))


def test_diagnose_of_an_empty_batch_is_nan_throughout():
    empty = diagnosed().select(torch.zeros(0, dtype=torch.int64)).batch()
    assert all(math.isnan(metric.item()) for metric in diagnose(empty, objective=make_objective("drpo")).values())


def test_diagnose_leaves_the_policys_gradient_alone():
    batch = random_tokens(0).batch(requires_grad=True)
    with torch.no_grad():
        diagnose(batch, objective=make_objective("drpo"))
        assert not gradient_weight(make_objective("drpo"), batch).requires_grad
    assert batch.logprobs.grad is None


@pytest.mark.parametrize("delta", [0, -0.1, math.nan, math.inf, True, "0.1", None])
def test_diagnose_checks_delta(delta: Any):
    with pytest.raises(ConfigError, match="delta must be a finite probability > 0, got "):
        diagnose(diagnosed().batch(), delta=delta)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_is_numpys(values: list[float], q: float):
    ours = quantile(torch.tensor(values, dtype=torch.float64), q)
    assert ours == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


def test_quantile_of_nothing_of_extremes_and_of_many():
    assert math.isnan(quantile(torch.zeros(0), 0.5))
    values = torch.tensor([3.0, -1.0, 2.0], requires_grad=True)
    assert (quantile(values, 0.0), quantile(values, 0.5), quantile(values, 1.0)) == (-1.0, 2.0, 3.0)
    # torch.quantile refuses more than 16 M values; this must not.
    assert quantile(torch.ones(1).expand(17_000_000), 0.99) == 1.0


def test_suggest():
    assert (
        suggest("ratio_hihg", ["ratio_low", "ratio_high"])
        == " Did you mean 'ratio_high'? Known: ratio_high, ratio_low."
    )
    assert suggest("DRPO", ["drpo", "dro"]) == " Did you mean 'drpo'? Known: dro, drpo."
    assert suggest("jsondecoder", ["JSONDecoder"]) == " Did you mean 'JSONDecoder'? Known: JSONDecoder."
    assert suggest("zzz", ["b", "a"]) == " Known: a, b."
    assert suggest("zzz", []) == " Known: (none)."
