"""The contract that every registered objective keeps, whoever wrote it.

Parametrised over ``drpo.OBJECTIVES``: an objective that is registered later is held to it at once. What the
test must know of each (numbers worked out by hand, the weight in closed form) is in objective_facts.py.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import drpo
from drpo import OBJECTIVES, Objective, TokenBatch, aggregate, gradient_weight, make_objective
from drpo.errors import ConfigError, DataError
from support.batches import (
    Tokens,
    pad,
    pad_mask,
    random_tokens,
    token_batches,
    tokens_from_probabilities,
    with_needs,
)
from support.objective_facts import FACTS, Case

# The paper's own delta = 12.5 is among the cases; its warning has a test of its own.
pytestmark = [pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning"), pytest.mark.slow]

NAMES = sorted(OBJECTIVES)
CASES = [
    pytest.param(name, case, id=f"{name}({', '.join(f'{k}={v}' for k, v in case.parameters.items())})")
    for name in NAMES
    if name in FACTS
    for case in FACTS[name].cases
]
EXTREME_LOGPROBS = (0.0, -1e-7, -0.7, -50.0, -100.0, -1000.0)


def everything(objective: Objective) -> dict[str, Any]:
    """All parameters, defaults included."""
    return {parameter: getattr(objective, parameter) for parameter in type(objective).parameters()}


def reference_weight(objective: Objective, tokens: Tokens) -> torch.Tensor:
    return FACTS[objective.name].weight(everything(objective), tokens)


def has_stop_gradient(objective: Objective) -> bool:
    return FACTS[objective.name].stop_gradient(everything(objective))


def smooth(objective: Objective, tokens: Tokens, step: float) -> torch.Tensor:
    """``[N]`` bool: the tokens whose weight does not jump within ``step`` nats of where they are."""
    below, here, above = (
        reference_weight(objective, tokens.at(tokens.logprobs + shift)) for shift in (-step, 0.0, step)
    )
    return (above - below).abs() <= 1e-2 * (1 + here.abs())


def loss_and_gradient(objective: Objective, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    loss = objective(batch).loss
    (gradient,) = torch.autograd.grad(loss.sum() + 0.0 * batch.logprobs.sum(), batch.logprobs)
    return loss.detach(), gradient


# ---- numbers


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_objective_has_numbers_worked_out_by_hand(name: str):
    assert name in FACTS, f"add {name!r} to its family's tests/support/facts_*.py"
    rows = [row for case in FACTS[name].cases for row in case.rows]
    assert len(rows) >= 5, "five tokens by hand at least"
    defaults = [case for case in FACTS[name].cases if not case.parameters]
    required = [p for p, default in OBJECTIVES[name].parameters().items() if default is dataclasses.MISSING]
    assert defaults or required, "one case must be at the defaults"


def test_no_facts_of_objectives_that_are_not_registered():
    assert set(FACTS) <= set(OBJECTIVES)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_loss_and_weight_by_hand(name: str, case: Case):
    pi, mu, advantages, loss, weight = zip(*case.rows, strict=True)
    tokens = tokens_from_probabilities(pi, mu, advantages, case.sequence_ids)
    optional = {
        field: torch.tensor(values, dtype=torch.bool if field == "topk_is_sampled" else torch.float64)
        for field, values in case.optional.items()
    }
    batch = dataclasses.replace(tokens, optional=optional).batch()
    objective = make_objective(name, **case.parameters)
    assert objective(batch).loss.tolist() == pytest.approx(loss, rel=1e-9, abs=1e-11)
    assert gradient_weight(objective, batch).tolist() == pytest.approx(weight, rel=1e-9, abs=1e-11)


# ---- gradients


@pytest.mark.parametrize(("name", "case"), CASES)
def test_gradient_is_that_of_the_loss(name: str, case: Case):
    objective = make_objective(name, **case.parameters)
    checked = differs = 0
    for seed in range(12):
        tokens = random_tokens(seed, objective=objective)
        # A finite difference is no gradient across a kink, so tokens that sit at one (or whole batches, where
        # tokens are coupled) are left out.
        regular = smooth(objective, tokens, 1e-5)
        if objective.token_local:
            tokens = tokens.select(regular)
        elif not bool(regular.all()):
            continue
        batch = tokens.batch()

        def loss(logprobs: torch.Tensor, batch: TokenBatch = batch) -> torch.Tensor:
            return objective(batch.with_logprobs(logprobs)).loss

        logprobs = batch.logprobs.clone().requires_grad_(True)
        if has_stop_gradient(objective):
            # Here the value is not an integral of the gradient: gradcheck must fail (or the objective has no
            # stop-gradient and should be checked), and the formula of the weight is the reference instead.
            differs += not torch.autograd.gradcheck(loss, logprobs, raise_exception=False)
            (slope,) = torch.autograd.grad(loss(logprobs).sum(), logprobs)
            expected = -tokens.advantages * tokens.ratio * reference_weight(objective, tokens)
            torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-12)
        else:
            assert torch.autograd.gradcheck(loss, logprobs)
        checked += len(tokens)
    assert checked >= 50
    assert (differs > 0) == has_stop_gradient(objective)


@pytest.mark.parametrize(("name", "case"), CASES)
@given(drawn=token_batches())
def test_weight_is_the_closed_form_and_what_autograd_says(name: str, case: Case, drawn: Tokens):
    objective = make_objective(name, **case.parameters)
    if not objective.token_local:  # coupled tokens share their sequence's advantage
        first = torch.searchsorted(drawn.sequence_ids, drawn.sequence_ids)
        drawn = dataclasses.replace(drawn, advantages=drawn.advantages[first])
    tokens = with_needs(drawn, objective.needs)
    weight = gradient_weight(objective, tokens.batch())
    assert not weight.requires_grad

    _, slope = loss_and_gradient(objective, tokens.batch(requires_grad=True))
    by_autograd = -slope / (tokens.advantages * tokens.ratio)
    torch.testing.assert_close(weight, by_autograd, rtol=1e-9, atol=1e-12)

    regular = smooth(objective, tokens, 1e-9)
    expected = reference_weight(objective, tokens)
    # The reference subtracts exponentials, so π − μ is right to 1e-16 and not relatively; that is divided by
    # a bound on π − μ (0.1 or so), or by μ ≥ 1e-8 where the bound is one on the ratio.
    tolerance = 1e-9 * (1 + expected.abs())
    assert bool((((weight - expected).abs() <= tolerance) | ~regular).all()), (weight, expected)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_weight_of_a_zero_advantage_is_nan_and_only_there(name: str, case: Case):
    objective = make_objective(name, **case.parameters)
    tokens = random_tokens(3, objective=objective)
    advantages = torch.where(tokens.sequence_ids == 2, 0.0, tokens.advantages)
    weight = gradient_weight(objective, dataclasses.replace(tokens, advantages=advantages).batch())
    assert weight.isnan().tolist() == (tokens.sequence_ids == 2).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_weight_of_bfloat16_tokens_is_not_rounded_to_bfloat16(name: str):
    objective = make_objective(name, **FACTS[name].cases[0].parameters)
    narrow = random_tokens(4, objective=objective).batch(torch.bfloat16)
    fields: dict[str, Any] = {field.name: getattr(narrow, field.name) for field in dataclasses.fields(narrow)}
    for field, value in fields.items():
        if value is not None and value.dtype == torch.bfloat16:
            fields[field] = value.float()
    wide = TokenBatch(**fields)
    weight = gradient_weight(objective, narrow)
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, gradient_weight(objective, wide), equal_nan=True)


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_finite_at_extreme_ratios(name: str, case: Case, dtype: torch.dtype):
    objective = make_objective(name, **case.parameters)
    rows = list(itertools.product(EXTREME_LOGPROBS, EXTREME_LOGPROBS, (-3.0, -1e-3, 1e-3, 3.0)))
    columns = torch.tensor(rows, dtype=torch.float64).T
    # One sequence a token: a sequence-level objective then meets each ratio by itself.
    alone = Tokens(columns[0], columns[1], columns[2], torch.arange(len(rows)))
    for tokens in (alone, dataclasses.replace(alone, sequence_ids=torch.zeros(len(rows), dtype=torch.int64))):
        batch = with_needs(tokens, objective.needs).batch(dtype, requires_grad=True)
        loss, gradient = loss_and_gradient(objective, batch)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert gradient.dtype == dtype
        assert bool(loss.isfinite().all()), batch.select(~loss.isfinite())
        assert bool(gradient.isfinite().all()), batch.select(~gradient.isfinite())
        assert not bool(gradient_weight(objective, batch).isnan().any())


@pytest.mark.parametrize(("name", "case"), CASES)
def test_bfloat16_costs_one_rounding_of_the_gradient(name: str, case: Case):
    objective = make_objective(name, **case.parameters)
    batch = random_tokens(5, lengths=(40, 40), objective=objective).batch(torch.bfloat16, requires_grad=True)
    loss, gradient = loss_and_gradient(objective, batch)
    wide_loss, wide_gradient = loss_and_gradient(
        objective, batch.with_logprobs(batch.logprobs.detach().float().requires_grad_(True))
    )
    assert torch.equal(loss, wide_loss)
    assert torch.equal(gradient, wide_gradient.to(torch.bfloat16))


# ---- batches


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30, -12.3], ids=str)
def test_dropped_tokens_change_nothing(name: str, case: Case, garbage: float):
    objective = make_objective(name, **case.parameters)
    lengths = (3, 1, 4)
    tokens = random_tokens(6, lengths, objective)
    mask = pad_mask(lengths)
    logprobs = pad(tokens.logprobs, lengths, garbage).requires_grad_(True)
    optional: dict[str, Any] = {field: pad(values, lengths, garbage) for field, values in tokens.optional.items()}
    batch = TokenBatch.from_padded(
        logprobs,
        pad(tokens.behavior_logprobs, lengths, garbage),
        pad(tokens.advantages, lengths, garbage),
        mask,
        **optional,
    )
    loss = objective(batch).loss
    (gradient,) = torch.autograd.grad(loss.sum() + 0.0 * batch.logprobs.sum(), logprobs)
    expected_loss, expected_gradient = loss_and_gradient(objective, tokens.batch(requires_grad=True))
    assert torch.equal(loss.detach(), expected_loss)
    assert torch.equal(gradient[mask], expected_gradient)
    assert bool((gradient[~mask] == 0).all())


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sequence_sum"])
@pytest.mark.parametrize("advantage_shape", ["B", "BT"])
def test_padded_equals_packed(name: str, case: Case, mode: Any, advantage_shape: str):
    objective = make_objective(name, **case.parameters)
    lengths = (4, 2, 5, 1)
    tokens = random_tokens(7, lengths, objective)
    if advantage_shape == "B":
        of_sequence = torch.tensor([0.7, -1.2, 0.3, -0.4], dtype=torch.float64)
        tokens = dataclasses.replace(tokens, advantages=of_sequence[tokens.sequence_ids])
        # A response of which no token is kept: its advantage must not matter either.
        advantages = torch.cat([of_sequence, torch.tensor([math.nan], dtype=torch.float64)])
    else:
        advantages = torch.cat([pad(tokens.advantages, lengths, 9.0), torch.full((1, 7), math.nan)])

    def padded(values: torch.Tensor) -> Any:
        full = pad(values, lengths, -9.0)
        return torch.cat([full, torch.full_like(full[:1], -9.0)])

    leaf = padded(tokens.logprobs).requires_grad_(True)
    batch = TokenBatch.from_padded(
        leaf,
        padded(tokens.behavior_logprobs),
        advantages,
        torch.cat([pad_mask(lengths), torch.zeros(1, 7) > 0]),
        **{field: padded(values) for field, values in tokens.optional.items()},
    )
    packed = tokens.batch(requires_grad=True)
    horizon = 11 if mode == "sequence_sum" else None
    ours = aggregate(objective(batch).loss, batch, mode, horizon=horizon)
    theirs = aggregate(objective(packed).loss, packed, mode, horizon=horizon)
    assert torch.equal(ours, theirs)
    (ours_slope,) = torch.autograd.grad(ours, leaf)
    (theirs_slope,) = torch.autograd.grad(theirs, packed.logprobs)
    assert torch.equal(ours_slope[:4][pad_mask(lengths)], theirs_slope)


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sequence_sum"])
@settings(max_examples=15)
@given(data=st.data())
def test_shards_add_up_to_the_whole(name: str, case: Case, mode: Any, data: st.DataObject):
    """A token-local objective may be cut anywhere, a sequence-local one between sequences."""
    objective = make_objective(name, **case.parameters)
    if not objective.sequence_local:
        return  # No cut is promised; the next test sees to it that this is not said for nothing.
    lengths = (4, 1, 6, 2, 3)
    n = sum(lengths)
    tokens = random_tokens(8, lengths, objective)
    denominator = n if mode == "token_mean" else len(lengths)
    horizon = 13 if mode == "sequence_sum" else None
    # sequence_mean has to see whole sequences too.
    whole_sequences = mode == "sequence_mean" or not objective.token_local
    places = sorted(itertools.accumulate(lengths)) if whole_sequences else list(range(1, n))
    cuts = sorted(data.draw(st.sets(st.sampled_from(places), min_size=1)) | {0, n})

    def run(batches: list[TokenBatch], leaf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            total = total + aggregate(objective(batch).loss, batch, mode, denominator, horizon)
        return total.detach(), torch.autograd.grad(total, leaf)[0]

    batch = tokens.batch(requires_grad=True)
    shards = [batch.select(torch.arange(start, end)) for start, end in itertools.pairwise(cuts)]
    whole, slope = run([batch], batch.logprobs)
    parts, parts_slope = run(shards, batch.logprobs)
    # The default denominators are those of the batch itself.
    torch.testing.assert_close(whole, aggregate(objective(batch).loss, batch, mode, horizon=horizon).detach())
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(parts_slope, slope, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_coupling_is_not_claimed_for_nothing(name: str, case: Case):
    """Where an objective says that tokens (or sequences) are coupled, some batch shows it."""
    objective = make_objective(name, **case.parameters)
    assert objective.sequence_local or not objective.token_local

    def cut_matters(between_sequences: bool) -> bool:
        for seed in range(2 if objective.token_local else 30):
            batch = random_tokens(seed, (30, 30), objective, spread=1.5).batch()
            cuts = (0, 30, 60) if between_sequences else range(61)
            parts = [batch.select(torch.arange(start, end)) for start, end in itertools.pairwise(cuts)]
            if not torch.allclose(torch.cat([objective(part).loss for part in parts]), objective(batch).loss):
                return True
        return False

    assert cut_matters(between_sequences=False) != objective.token_local
    assert cut_matters(between_sequences=True) != objective.sequence_local


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("garbage_first", [False, True])
def test_packing_changes_nothing(name: str, case: Case, garbage_first: bool):
    """What is packed before or after a sequence does not touch it, as far as the objective promises."""
    objective = make_objective(name, **case.parameters)
    tokens = random_tokens(10, (9, 4), objective)
    if not objective.sequence_local:
        backwards = tokens.select(torch.cat([torch.arange(9, 13), torch.arange(9)]))
        swapped = dataclasses.replace(backwards, sequence_ids=torch.tensor([0] * 4 + [1] * 9))
        loss = objective(swapped.batch()).loss
        assert torch.equal(torch.cat([loss[4:], loss[:4]]), objective(tokens.batch()).loss)
        return
    other = random_tokens(11, (7, 2), objective, spread=3.0)
    first, second = (other, tokens) if garbage_first else (tokens, other)
    packed = Tokens(
        torch.cat([first.logprobs, second.logprobs]),
        torch.cat([first.behavior_logprobs, second.behavior_logprobs]),
        torch.cat([first.advantages, second.advantages]),
        torch.cat([first.sequence_ids, second.sequence_ids + 2]),
        {field: torch.cat([values, second.optional[field]]) for field, values in first.optional.items()},
    )
    loss = objective(packed.batch()).loss
    part = loss[len(other) :] if garbage_first else loss[: len(tokens)]
    torch.testing.assert_close(part, objective(tokens.batch()).loss, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_homogeneous_says_whether_the_gradient_scales_with_the_advantages(name: str, case: Case):
    objective = make_objective(name, **case.parameters)
    tokens = random_tokens(9, (20, 20, 20), objective)
    _, gradient = loss_and_gradient(objective, tokens.batch(requires_grad=True))
    for scale in (0.25, 3.0):
        scaled = dataclasses.replace(tokens, advantages=scale * tokens.advantages)
        _, scaled_gradient = loss_and_gradient(objective, scaled.batch(requires_grad=True))
        assert torch.allclose(scaled_gradient, scale * gradient, rtol=1e-9, atol=1e-12) == objective.homogeneous


@pytest.mark.parametrize("name", NAMES)
def test_empty_batch(name: str):
    objective = make_objective(name, **FACTS[name].cases[0].parameters)
    batch = random_tokens(0, objective=objective).select(torch.zeros(0, dtype=torch.int64)).batch()
    assert objective(batch).loss.shape == (0,)
    assert gradient_weight(objective, batch).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_missing_fields_are_named(name: str):
    objective = make_objective(name, **FACTS[name].cases[0].parameters)
    tokens = random_tokens(0, objective=objective)
    for field in objective.needs:
        lacking = dataclasses.replace(tokens, optional={k: v for k, v in tokens.optional.items() if k != field})
        with pytest.raises(DataError, match=f"{name}.* needs {field} .*pass TokenBatch"):
            objective(lacking.batch())


def test_missing_fields_are_named_for_an_objective_of_ones_own():
    class Decoupled(Objective):
        name = "decoupled"
        needs = ("proximal_logprobs",)

        def loss(self, batch: TokenBatch) -> torch.Tensor:
            assert batch.proximal_logprobs is not None
            return batch.proximal_logprobs - batch.logprobs

    tokens = random_tokens(0)
    with pytest.raises(DataError, match=r"'decoupled' needs proximal_logprobs \[N\]; pass TokenBatch\("):
        Decoupled()(tokens.batch())
    assert len(Decoupled()(with_needs(tokens, Decoupled.needs).batch()).loss) == len(tokens)
    with pytest.raises(NotImplementedError, match="Incomplete does not define loss"):
        type("Incomplete", (Objective,), {"name": "incomplete"})()(tokens.batch())


# ---- definition


@pytest.mark.parametrize("name", NAMES)
def test_definition(name: str):
    cls = OBJECTIVES[name]
    assert cls.name == name
    signature = inspect.signature(cls).parameters
    assert set(signature) == set(cls.parameters())
    assert {parameter.kind for parameter in signature.values()} <= {inspect.Parameter.KEYWORD_ONLY}
    objective = make_objective(name, **FACTS[name].cases[0].parameters)
    assert objective == cls(**FACTS[name].cases[0].parameters)
    for parameter in cls.parameters():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(objective, parameter, 0.5)
    known = {field.name for field in dataclasses.fields(TokenBatch)}
    assert set(objective.needs) <= known


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_what_a_reader_needs(name: str):
    cls = OBJECTIVES[name]
    documentation = inspect.getdoc(cls)
    assert documentation is not None and cls.__doc__ is not None, "a docstring of its own"
    heads = re.findall(r"^(Equation|Source|Shapes|Parameters|Deviations):", documentation, flags=re.MULTILINE)
    expected = ["Equation", "Source", "Shapes", "Parameters", "Deviations"]
    if not cls.parameters():
        expected.remove("Parameters")
    assert heads == expected
    sections = dict(zip(heads, re.split(r"^(?:" + "|".join(heads) + "):", documentation, flags=re.M)[1:], strict=True))
    assert all(text.strip() for text in sections.values())
    assert re.search(r"arXiv:\d{4}\.\d{5}", sections["Source"])
    assert "[N]" in sections["Shapes"]
    if cls.parameters():
        entries = re.findall(r"^    ((?:\w+, )*\w+): ", sections["Parameters"], flags=re.MULTILINE)
        assert [entry for line in entries for entry in line.split(", ")] == list(cls.parameters())


# ---- parameters


def _refused(name: str, parameter: str, default: object) -> list[object]:
    if isinstance(default, bool):
        return [1, 0, 0.0, "true", None]
    if isinstance(default, str):
        return ["", "nonsense", 1, None]
    values: list[object] = [math.nan, math.inf, -math.inf, -1.0, -1, True, "0.1", [0.1]]
    if default is not None:
        values.append(None)
    if isinstance(default, int):
        values.append(2.5)
    if parameter not in FACTS[name].zero_allowed:
        values += [0, 0.0, -1e-300]
    return values


PARAMETERS = [
    (name, parameter, value)
    for name in NAMES
    if name in FACTS
    for parameter, default in OBJECTIVES[name].parameters().items()
    for value in _refused(name, parameter, default)
]


@pytest.mark.parametrize(("name", "parameter", "value"), PARAMETERS, ids=lambda value: repr(value))
def test_parameters_out_of_range_are_refused(name: str, parameter: str, value: object):
    with pytest.raises(ConfigError) as caught:
        make_objective(name, **{**FACTS[name].cases[0].parameters, parameter: value})
    what = re.fullmatch(r"(\w+): (\w+) must be (.+), got (.+)", str(caught.value))
    assert what is not None, str(caught.value)
    assert (what[1], what[2], what[4]) == (name, parameter, repr(value))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_allowed_where_the_facts_say_so(name: str):
    for parameter in FACTS[name].zero_allowed:
        make_objective(name, **{**FACTS[name].cases[0].parameters, parameter: 0})


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ppo", {"ratio_low": 1.5}, "ppo: ratio_low must be a ratio in (0, 1], got 1.5"),
        ("grpo", {"ratio_low": 1.01}, "grpo: ratio_low must be a ratio in (0, 1], got 1.01"),
        (
            "ppo",
            {"dual_clip": 1.2},
            "ppo: dual_clip must be None or a finite ratio > 1 + ratio_high = 1.2, got 1.2",
        ),
        (
            "grpo",
            {"dual_clip": 1.2},
            "grpo: dual_clip must be None or a finite ratio > 1 + ratio_high = 1.28, got 1.2",
        ),
        ("drpo", {"deadzone": 0.15}, "drpo: deadzone must be a probability in [0, delta = 0.15), got 0.15"),
        (
            "drpo",
            {"delta": 0.3, "deadzone": 0.5},
            "drpo: deadzone must be a probability in [0, delta = 0.3), got 0.5",
        ),
    ],
)
def test_bounds_between_parameters(name: str, parameters: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        make_objective(name, **parameters)
    assert str(caught.value) == message


def test_limits_of_the_ranges_are_allowed():
    make_objective("ppo", ratio_low=1, ratio_high=3, dual_clip=4.001)
    make_objective("drpo", delta=0.3, deadzone=0.2999)
    make_objective("dppo_tv", delta=1, ratio_cap=1)


# ---- the registry


def test_registry_names_are_the_classes_own():
    assert {name: cls.name for name, cls in OBJECTIVES.items()} == {name: name for name in OBJECTIVES}
    assert {"surrogate", "ppo", "grpo", "spo", "dppo_tv", "drpo"} <= set(OBJECTIVES)
    assert drpo.make_objective("drpo", delta=0.3) == OBJECTIVES["drpo"](**{"delta": 0.3})


def test_unknown_objective_gets_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown objective 'dpro'\. Did you mean 'drpo'\? Known: .*dppo_tv.*spo"):
        make_objective("dpro")
    with pytest.raises(ConfigError, match=r"unknown objective 'zzzzzz'\. Known: "):
        make_objective("zzzzzz")


def test_unknown_parameter_gets_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'ppo' has no parameter 'ratio_hihg'\. Did you mean 'ratio_high'\? Known: "):
        make_objective("ppo", ratio_hihg=0.3)
    with pytest.raises(ConfigError, match=r"'surrogate' has no parameter 'delta'\. Known: anchor, modifiers"):
        make_objective("surrogate", delta=0.3)
