"""The public API at the edges of its input: mask-fill values, wrong types and shapes, and what a metric can do.

Shapes: ``N`` tokens, ``B`` sequences, ``T`` positions, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import drpo
from drpo.divergence import k1, k2, k3, k_reverse, log_ratio, ratio, relative_shift, shift
from drpo.errors import ConfigError, DataError
from drpo.metrics import Maximum, Minimum
from drpo.objectives import OBJECTIVES

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
#: log π, log μ → log r: what stands in the place of a log-probability at masked positions.
FILLED = [
    (-1.0, -1e9, 40.0),
    (-1.0, -1e10, 40.0),
    (-1e30, -1.0, -40.0),
    (-1e9, -1.0, -40.0),
    (-1.0, -3e38, 40.0),
    (-1.0, -65504.0, 40.0),
    (-math.inf, -1.0, -40.0),
    (-1.0, -math.inf, 40.0),
    (-1.0, -1e4, 40.0),
    (-1e9, -1e9, 0.0),
]


# ---- mask-fill values


@pytest.mark.parametrize(
    ("pi", "mu", "expected", "dtype"),
    # −1e9 is −inf in float16, and the difference of two infinities is no number.
    [(*filled, dtype) for filled in FILLED for dtype in DTYPES if (filled[2], dtype) != (0.0, torch.float16)],
)
def test_log_ratio_saturates_exactly_at_mask_fill_values(pi: float, mu: float, expected: float, dtype: torch.dtype):
    leaf = torch.tensor([pi], dtype=dtype, requires_grad=True)
    behavior = torch.tensor([mu], dtype=dtype)
    value = log_ratio(leaf, behavior)
    assert value.item() == expected
    value.sum().backward()
    assert leaf.grad is not None and leaf.grad.item() == 1.0
    wide = torch.tensor(expected, dtype=value.dtype)
    assert ratio(leaf, behavior).item() == wide.exp().item()
    assert relative_shift(leaf, behavior).item() == pytest.approx(math.expm1(expected), rel=1e-6)
    assert shift(leaf, behavior).item() == pytest.approx(math.exp(pi) - math.exp(mu), rel=1e-2, abs=1e-12)
    estimates = [
        -expected,
        0.5 * expected**2,
        math.expm1(expected) - expected,
        math.exp(expected) * expected - math.expm1(expected),
    ]
    for estimator, right in zip((k1, k2, k3, k_reverse), estimates, strict=True):
        assert estimator(log_ratio(leaf, behavior)).item() == pytest.approx(right, rel=1e-6)


def test_log_ratio_inside_the_guard_is_the_plain_difference_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    pi, mu = (-20 * torch.rand(1000, generator=generator) for _ in range(2))
    assert torch.equal(log_ratio(pi, mu), pi - mu)
    grid = torch.func.vmap(log_ratio)(pi.reshape(10, 100), mu.reshape(10, 100))
    assert torch.equal(grid.flatten(), pi - mu)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("pi", "mu"), [(-1.0, -1e9), (-1e30, -1.0), (-1e9, -1e9), (-1e9, -1e-9)])
def test_every_objective_is_finite_at_mask_fill_values(name: str, pi: float, mu: float):
    objective = drpo.make_objective(name)
    leaf = torch.tensor([pi, -0.5, pi], requires_grad=True)
    behavior = torch.tensor([mu, -0.7, mu])
    fields: dict[str, Any] = {"proximal_logprobs": behavior, "entropy": torch.ones(3)}
    if objective.topk:
        likely = torch.full((3, objective.topk), -30.0)
        fields |= {
            "topk_logprobs": likely,
            "topk_behavior_logprobs": likely,
            "topk_is_sampled": torch.zeros_like(likely, dtype=torch.bool),
        }
    batch = drpo.TokenBatch(leaf, behavior, torch.tensor([1.0, 1.0, -1.0]), sequence_ids=torch.arange(3), **fields)
    loss = drpo.aggregate(objective(batch).loss, batch)
    loss.backward()
    assert math.isfinite(loss.item()) and leaf.grad is not None and bool(leaf.grad.isfinite().all())


def test_diagnose_counts_what_the_guard_touches():
    logprobs, behavior = torch.tensor([-1.0, -1.0, -1e30, -0.5]), torch.tensor([-1e9, -1e10, -1.0, -0.5])
    found = drpo.diagnose(drpo.TokenBatch(logprobs, behavior, torch.ones(4)))
    assert found["saturated_share"] == 0.75
    assert found["ratio_max"] == pytest.approx(math.exp(40), rel=1e-6)
    assert found["ratio_min"] == pytest.approx(math.exp(-40), rel=1e-6)


# ---- targets and hidden states


def states(n: int = 5, h: int = 4, v: int = 9) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden": torch.randn(n, h, generator=generator),
        "weight": torch.randn(v, h, generator=generator),
        "targets": torch.randint(0, v, (n,), generator=generator),
    }


def logprobs_of(given: dict[str, Any], function: str) -> Any:
    if function == "token_logprobs":
        return drpo.token_logprobs(**given)
    n = len(given["targets"]) if isinstance(given["targets"], torch.Tensor) else 5
    fields: dict[str, Any] = {"behavior_logprobs": -torch.ones(n), "advantages": torch.ones(n)}
    return drpo.fused_loss(**given, objective=drpo.make_objective("drpo"), **fields)


@pytest.mark.parametrize("function", ["token_logprobs", "fused_loss"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 1, -100, 3, -100])}, r"2 of 5 are not.* 2 with -100.*keep = targets >= 0"),
        ({"targets": torch.tensor([0, 1, 9, 3, 4])}, r"V = 9.* index 2 with 9.*another tokenizer"),
        ({"targets": torch.tensor([-1, 1, 2, 3, 4])}, r"index 0 with -1"),
        ({"targets": torch.arange(5, dtype=torch.int32)}, r"targets must be int64"),
        ({"targets": [1, 2, 3, 4, 5]}, r"targets must be a tensor, got list"),
        ({"weight": torch.nn.Linear(4, 9)}, r"weight must be a tensor, got Linear; pass its weight"),
        ({"hidden": torch.zeros(1, 5, 4)}, r"got \[1, 5, 4\] .*hidden\[mask\] and targets\[mask\]"),
        ({"weight": torch.zeros(4, 9)}, r"hidden must be \[N, H\] and weight \[V, H\]"),
        ({"hidden": torch.zeros(5, 4, device="meta")}, r"on meta, cpu and cpu; move"),
    ],
)
def test_states_and_targets_are_checked(function: str, change: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        logprobs_of(states() | change, function)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, "0.7", None, True, torch.tensor(0.7)], ids=str)
def test_temperatures_are_checked(temperature: Any):
    with pytest.raises(ConfigError, match="temperature must be"):
        drpo.token_logprobs(**states(), temperature=temperature)


def test_fused_loss_names_the_field_that_is_wrong():
    objective = drpo.make_objective("drpo")
    right: dict[str, Any] = {"behavior_logprobs": -torch.ones(5), "advantages": torch.ones(5)}
    for name, value in (
        ("behavior_logprobs", -torch.ones(4)),
        ("advantages", torch.ones(2, 3)),
        ("behavior_logprobs", -torch.ones(1, 5)),
    ):
        with pytest.raises(DataError, match=rf"{name} must be \[N\] = \[5\]"):
            drpo.fused_loss(**states(), objective=objective, **{**right, name: value})
    with pytest.raises(DataError, match="behavior_logprobs must be a tensor, a NumPy array or a list"):
        drpo.fused_loss(**states(), objective=objective, behavior_logprobs=None, advantages=torch.ones(5))  # pyright: ignore[reportArgumentType]
    as_lists = drpo.fused_loss(
        **states(),
        objective=objective,
        behavior_logprobs=[-1.0] * 5,  # pyright: ignore[reportArgumentType]
        advantages=np.ones(5, dtype=np.float32),  # pyright: ignore[reportArgumentType]
    )
    assert as_lists.loss == drpo.fused_loss(**states(), objective=objective, **right).loss


def test_fused_loss_returns_the_exported_class_and_says_what_is_in_it():
    out = logprobs_of(states(), "fused_loss")
    assert isinstance(out, drpo.FusedLoss)
    assert not out.entropy.requires_grad and not out.logprobs.requires_grad
    documentation = drpo.fused_loss.__doc__ or ""
    assert "Returns:" in documentation and "constants" in documentation


# ---- aggregate


def tokens(n: int = 4) -> drpo.TokenBatch:
    return drpo.TokenBatch(-torch.ones(n), -torch.ones(n), torch.ones(n))


@pytest.mark.parametrize(
    "denominator",
    [
        torch.tensor(0.0),
        torch.tensor(0),
        torch.tensor(-3.0),
        torch.tensor(math.nan),
        torch.tensor(math.inf),
        torch.ones(2),
        torch.ones(0),
        torch.tensor(1 + 1j),
        "4",
        0,
        -1,
        math.inf,
        math.nan,
        True,
        [4],
        10**400,
        np.float32(0),
    ],
    ids=str,
)
def test_denominators_are_checked(denominator: Any):
    with pytest.raises(ConfigError, match=r"denominator must be (positive|one number)"):
        drpo.aggregate(torch.ones(4), tokens(), denominator=denominator)


@pytest.mark.parametrize(
    "denominator",
    [8, 8.0, torch.tensor(8), torch.tensor([8.0]), torch.tensor([[8]]), np.int64(8), np.float32(8)],
    ids=repr,
)
def test_every_kind_of_number_is_a_denominator(denominator: Any):
    out = drpo.aggregate(torch.ones(4), tokens(), denominator=denominator)
    assert out.shape == () and out.item() == 0.5


@pytest.mark.parametrize("horizon", ["16", 10**30, 10**400, 0, -1, math.inf, True, torch.tensor(8), [8]], ids=str)
def test_horizons_are_checked(horizon: Any):
    with pytest.raises(ConfigError, match="sequence_sum needs horizon > 0"):
        drpo.aggregate(torch.ones(4), tokens(), "sequence_sum", horizon=horizon)


def test_aggregate_says_what_its_arguments_are():
    batch = tokens()
    out = drpo.make_objective("drpo")(batch)
    with pytest.raises(DataError, match=r"got ObjectiveOutput; pass its loss: aggregate\(objective\(batch\)\.loss"):
        drpo.aggregate(out, batch)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="batch must be a TokenBatch, got Tensor"):
        drpo.aggregate(out.loss, torch.ones(4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="unknown aggregation mode 5"):
        drpo.aggregate(out.loss, batch, mode=5)  # pyright: ignore[reportArgumentType]


# ---- objectives


@pytest.mark.parametrize("objective", ["drpo", OBJECTIVES["drpo"], None, 0.15], ids=str)
def test_what_is_no_objective_says_how_to_make_one(objective: Any):
    fields: dict[str, Any] = {"behavior_logprobs": -torch.ones(5), "advantages": torch.ones(5)}
    calls = [
        lambda: drpo.gradient_weight(objective, tokens()),
        lambda: drpo.fused_loss(**states(), objective=objective, **fields),
    ]
    if objective is not None:
        calls.append(lambda: drpo.diagnose(tokens(), objective=objective))
    for call in calls:
        with pytest.raises(ConfigError, match=r"objective must be an objective, got .*drpo\.make_objective\("):
            call()


@pytest.mark.parametrize("name", [None, 3, ["drpo"], drpo.make_objective("drpo"), "drop"], ids=str)
def test_make_objective_takes_a_name(name: Any):
    with pytest.raises(ConfigError, match="unknown objective"):
        drpo.make_objective(name)


def test_an_objective_takes_a_batch():
    for wrong in (torch.ones(3), None, {"logprobs": torch.ones(3)}):
        with pytest.raises(DataError, match="batch must be a TokenBatch"):
            drpo.make_objective("drpo")(wrong)  # pyright: ignore[reportArgumentType]
        with pytest.raises(DataError, match="batch must be a TokenBatch"):
            drpo.diagnose(wrong)  # pyright: ignore[reportArgumentType]


# ---- the batch


def test_swapped_policies_are_an_error():
    policy, behavior = torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-1.1, -2.1])
    with pytest.raises(DataError, match=r"behavior_logprobs requires a gradient and logprobs does not: .*swapped"):
        drpo.TokenBatch(behavior, policy, torch.ones(2))
    with pytest.raises(DataError, match="swapped"):
        drpo.TokenBatch.from_padded(behavior[None], policy[None], torch.ones(1), torch.ones(1, 2))
    with pytest.raises(DataError, match="proximal_logprobs requires a gradient"):
        drpo.TokenBatch(behavior, behavior, torch.ones(2), proximal_logprobs=policy)
    both = drpo.TokenBatch(policy, 1.0 * policy, torch.ones(2))
    assert not both.behavior_logprobs.requires_grad
    drpo.TokenBatch(behavior, policy.detach(), torch.ones(2))


@pytest.mark.parametrize("convert", [list, tuple, np.array, lambda values: np.array(values, dtype=np.float32)])
def test_lists_and_arrays_become_tensors(convert: Any):
    right = drpo.TokenBatch(
        torch.tensor([-1.0, -2.0, -3.0]),
        torch.tensor([-1.5, -2.0, -1.0]),
        torch.tensor([1.0, 1.0, 0.0]),
        sequence_ids=torch.tensor([0, 0, 1]),
    )
    made = drpo.TokenBatch(
        torch.tensor([-1.0, -2.0, -3.0], requires_grad=True),
        convert([-1.5, -2.0, -1.0]),
        convert([1, 1, 0]),
        sequence_ids=[0, 0, 1],  # pyright: ignore[reportArgumentType]
    )
    for name in ("behavior_logprobs", "advantages", "sequence_ids"):
        assert torch.equal(getattr(made, name).double(), getattr(right, name).double()), name
    padded = drpo.TokenBatch.from_padded(
        torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]),
        convert([[-1.5, -2.0], [-1.0, -9.0]]),
        convert([1, 0]),
        [[True, True], [1, 0]],  # pyright: ignore[reportArgumentType]
    )
    assert padded.behavior_logprobs.tolist() == [-1.5, -2.0, -1.0] and padded.advantages.tolist() == [1.0, 1.0, 0.0]


WRONG = [None, "text", [-1.0, None], [[-1.0], [-1.0, -2.0]], {"a": 1}, object(), [-1.0, "x"]]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_list_of_numbers_is_an_error(wrong: Any):
    with pytest.raises(DataError, match="behavior_logprobs must be"):
        drpo.TokenBatch(-torch.ones(2), wrong, torch.ones(2))
    with pytest.raises(DataError, match="behavior_logprobs must be"):
        drpo.TokenBatch.from_padded(-torch.ones(2, 2), wrong, torch.ones(2), torch.ones(2, 2))


def test_shapes_and_devices_are_errors_with_the_fix():
    ones = torch.ones(4)
    with pytest.raises(DataError, match=r"advantages must be \[N\] = \[4\] .* got \[2\]; for one advantage a sequence"):
        drpo.TokenBatch(-ones, -ones, torch.ones(2), sequence_ids=torch.tensor([0, 0, 1, 1]))
    with pytest.raises(DataError, match=r"advantages must be \[B, T\] or \[B\]"):
        drpo.TokenBatch.from_padded(-torch.ones(2, 3), -torch.ones(2, 3), torch.ones(3), torch.ones(2, 3))
    with pytest.raises(DataError, match="advantages is on meta and logprobs on cpu"):
        drpo.TokenBatch(-ones, -ones, torch.ones(4, device="meta"))
    with pytest.raises(DataError, match="mask is on meta and logprobs on cpu"):
        drpo.TokenBatch.from_padded(-ones[None], -ones[None], torch.ones(1), torch.ones(1, 4, device="meta"))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32, torch.bfloat16], ids=str)
def test_masks_of_every_dtype_keep_the_same_tokens(dtype: torch.dtype):
    mask = torch.tensor([[1, 0, 1], [0, 1, 1]]).to(dtype)
    logprobs = -torch.arange(1.0, 7.0).reshape(2, 3)
    assert drpo.TokenBatch.from_padded(logprobs, logprobs, torch.ones(2), mask).logprobs.tolist() == [-1, -3, -5, -6]


@pytest.mark.parametrize("value", [-math.inf, -1e9, -1.0, math.nan])
def test_a_mask_that_means_the_opposite_is_an_error(value: float):
    mask = torch.tensor([[0.0, value]])
    with pytest.raises(DataError, match=r"mask must be bool or numbers ≥ 0.*additive"):
        drpo.TokenBatch.from_padded(-torch.ones(1, 2), -torch.ones(1, 2), torch.ones(1), mask)


# ---- group advantages


def test_an_int_is_the_size_of_every_group():
    rewards = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.5, 0.0])
    for size in (2, np.int64(2)):
        found = drpo.group_advantages(rewards, size)  # pyright: ignore[reportArgumentType]
        assert torch.equal(found, drpo.group_advantages(rewards, torch.tensor([0, 0, 1, 1, 2, 2])))
    assert drpo.group_advantages([1, 0, 1], 3).tolist() == pytest.approx([1 / 3, -2 / 3, 1 / 3])  # pyright: ignore[reportArgumentType]
    assert drpo.group_advantages(np.array([1.0, 0.0]), [7, 7]).tolist() == [0.5, -0.5]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (4, DataError, "6 rewards .*groups of 4"),
        (0, ConfigError, "a group size must be an integer ≥ 1, got 0"),
        (-2, ConfigError, "a group size must be"),
        (2.0, ConfigError, "a group size must be"),
        (True, ConfigError, "a group size must be"),
        ("2", DataError, "group_ids must be a tensor"),
        (None, DataError, "group_ids must be a tensor"),
        (torch.zeros(6, dtype=torch.int64, device="meta"), DataError, "rewards are on cpu and group_ids on meta"),
    ],
)
def test_wrong_groups_are_errors(groups: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        drpo.group_advantages(torch.ones(6), groups)


@pytest.mark.parametrize("epsilon", [-1.0, math.nan, "0", None])
def test_epsilon_is_checked(epsilon: Any):
    with pytest.raises(ConfigError, match="epsilon must be"):
        drpo.group_advantages(torch.ones(6), 2, epsilon=epsilon)


# ---- metrics


def test_a_metric_is_a_float():
    metric = drpo.Metric(torch.tensor(3.0), torch.tensor(2))
    assert (float(metric), f"{metric:.3f}", str(metric), round(metric, 1)) == (1.5, "1.500", "1.5", 1.5)
    assert metric == 1.5 and metric > 1 and metric <= drpo.Metric(4.0, 2) and metric * 2 == 3.0 and -metric == -1.5
    assert (metric.sum, metric.count, metric.item()) == (3.0, 2.0, 1.5)
    assert np.array([metric, metric]).mean() == 1.5 and np.isclose(metric, 1.5) and math.isfinite(metric)
    assert torch.tensor([metric]).item() == 1.5
    assert metric + 1 == 2.5 and 1 + metric == 2.5
    assert type(metric.item()) is float and type(metric + 1) is float


@pytest.mark.parametrize(("cls", "merged"), [(drpo.Metric, 8 / 5), (Maximum, 5.0), (Minimum, 3.0)])
def test_metrics_merge_by_sum_and_survive_copies(cls: type[drpo.Metric], merged: float):
    one, other = cls(3.0, 2), cls(5.0, 3)
    found: Any
    for found in (one + other, sum([one, other]), copy.deepcopy(one) + pickle.loads(pickle.dumps(other))):
        assert type(found) is cls and found == merged and found.count == 5
    with pytest.raises(TypeError, match="do not merge"):
        _ = one + (Maximum if cls is drpo.Metric else drpo.Metric)(1.0, 1)


def test_diagnose_serializes_as_json():
    found = drpo.diagnose(tokens(), objective=drpo.make_objective("drpo"))
    assert json.loads(json.dumps(found)) == pytest.approx(
        {name: float(metric) for name, metric in found.items()}, nan_ok=True
    )
    assert all(type(metric.sum) is float for metric in found.values())
