"""TokenBatch: what it holds, what it refuses and how it says so."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from drpo import TokenBatch
from drpo.errors import DataError
from support.batches import OPTIONAL_FIELDS, pad, pad_mask, random_tokens, with_needs


def arguments(n: int = 4) -> dict[str, Any]:
    return {
        "logprobs": torch.linspace(-2, -1, n),
        "behavior_logprobs": torch.linspace(-1.5, -1, n),
        "advantages": torch.linspace(-1, 1, n),
    }


FLOATS = ["logprobs", "behavior_logprobs", "advantages", "proximal_logprobs", "entropy"]


def test_length_sequences_and_index():
    ids = torch.tensor([3, 3, 5, 5, 5, 9])
    batch = TokenBatch(**arguments(6), sequence_ids=ids)
    assert (len(batch), batch.num_sequences) == (6, 3)
    assert batch.sequence_index().tolist() == [0, 0, 1, 1, 1, 2]
    alone = TokenBatch(**arguments(6))
    assert (len(alone), alone.num_sequences) == (6, 1)
    assert alone.sequence_index().tolist() == [0] * 6


def test_empty():
    for ids in (None, torch.zeros(0, dtype=torch.int64)):
        batch = TokenBatch(**arguments(0), sequence_ids=ids)
        assert (len(batch), batch.num_sequences) == (0, 0)
        assert batch.sequence_index().shape == (0,)
        assert batch.sequence_index().dtype == torch.int64


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TokenBatch(**arguments()).advantages = torch.zeros(4)  # pyright: ignore[reportAttributeAccessIssue]


def test_only_logprobs_carry_a_gradient():
    given: dict[str, Any] = {name: torch.full((4,), -0.5, requires_grad=True) for name in FLOATS}
    batch = TokenBatch(**given)
    assert batch.logprobs is given["logprobs"]
    assert [getattr(batch, name).requires_grad for name in FLOATS] == [True, False, False, False, False]
    given = {name: torch.full((2, 2), -0.5, requires_grad=True) for name in FLOATS}
    padded = TokenBatch.from_padded(**given, mask=torch.ones(2, 2))
    assert [getattr(padded, name).requires_grad for name in FLOATS] == [True, False, False, False, False]


def test_select_keeps_every_field_and_the_gradient():
    tokens = with_needs(random_tokens(0), OPTIONAL_FIELDS)
    batch = tokens.batch(requires_grad=True)
    keep = torch.arange(len(tokens)) % 3 != 1
    for chosen in (keep, keep.nonzero().flatten()):
        part = batch.select(chosen)
        for field in dataclasses.fields(batch):
            assert torch.equal(getattr(part, field.name), getattr(batch, field.name)[keep]), field.name
    (slope,) = torch.autograd.grad(batch.select(keep).logprobs.sum(), batch.logprobs)
    assert slope.tolist() == keep.double().tolist()
    lean = TokenBatch(**arguments()).select(torch.tensor([0]))
    assert (lean.sequence_ids, lean.proximal_logprobs, lean.entropy) == (None, None, None)


def test_with_logprobs_changes_the_policy_alone():
    batch = with_needs(random_tokens(0), ["proximal_logprobs", "entropy"]).batch()
    logprobs = batch.logprobs - 1
    other = batch.with_logprobs(logprobs)
    assert other.logprobs is logprobs
    for field in dataclasses.fields(batch):
        if field.name != "logprobs":
            assert getattr(other, field.name) is getattr(batch, field.name)
    with pytest.raises(DataError, match=r"behavior_logprobs must be \[N\] = \[2\]"):
        batch.with_logprobs(logprobs[:2])


# ---- from_padded


def test_from_padded_packs_in_order():
    lengths = (2, 1, 3)
    tokens = with_needs(random_tokens(1, lengths), OPTIONAL_FIELDS)
    padded: dict[str, Any] = {name: pad(values, lengths, math.nan) for name, values in tokens.optional.items()}
    for mask in (pad_mask(lengths), pad_mask(lengths).long(), pad_mask(lengths).float() * 0.5):
        batch = TokenBatch.from_padded(
            pad(tokens.logprobs, lengths, math.nan),
            pad(tokens.behavior_logprobs, lengths, math.nan),
            pad(tokens.advantages, lengths, math.nan),
            mask,
            **padded,
        )
        expected = tokens.batch()
        for field in dataclasses.fields(batch):
            assert torch.equal(getattr(batch, field.name), getattr(expected, field.name)), field.name
    assert batch.sequence_ids is not None and batch.sequence_ids.tolist() == [0, 0, 1, 2, 2, 2]


def test_from_padded_leaves_out_what_was_not_given_and_skips_empty_rows():
    logprobs = torch.full((3, 2), -1.0)
    mask = torch.tensor([[1, 0], [0, 0], [1, 1]])
    batch = TokenBatch.from_padded(logprobs, logprobs, torch.tensor([1.0, 2.0, 3.0]), mask)
    assert batch.sequence_ids is not None and batch.sequence_ids.tolist() == [0, 2, 2]
    assert batch.advantages.tolist() == [1.0, 3.0, 3.0]
    assert batch.num_sequences == 2
    assert (batch.proximal_logprobs, batch.entropy) == (None, None)


def test_from_padded_of_a_square_batch_reads_advantages_by_their_dimensions():
    logprobs = torch.full((2, 2), -1.0)
    batch = TokenBatch.from_padded(logprobs, logprobs, torch.tensor([1.0, 2.0]), torch.ones(2, 2))
    assert batch.advantages.tolist() == [1.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"logprobs": torch.zeros(6)},
            r"logprobs must be \[B, T\], got \[6\]; for packed \[N\] tensors call TokenBatch\(",
        ),
        (
            {"behavior_logprobs": torch.zeros(2, 4)},
            r"behavior_logprobs must be \[B, T\] with \[B, T\] = \[2, 3\] as logprobs has, got \[2, 4\]",
        ),
        (
            {"advantages": torch.zeros(3)},
            r"advantages must be \[B, T\] or \[B\] with \[B, T\] = \[2, 3\].*got \[3\]",
        ),
        ({"advantages": torch.zeros(2, 1)}, r"advantages must be \[B, T\] or \[B\].*got \[2, 1\]"),
        ({"mask": torch.ones(2)}, r"mask must be \[B, T\].*got \[2\]"),
        ({"proximal_logprobs": torch.zeros(1, 3)}, r"proximal_logprobs must be \[B, T\].*got \[1, 3\]"),
        ({"entropy": torch.zeros(6)}, r"entropy must be \[B, T\].*got \[6\]"),
    ],
)
def test_from_padded_checks_shapes(change: dict[str, torch.Tensor], message: str):
    given: dict[str, Any] = {name: torch.zeros(2, 3) for name in FLOATS} | {"mask": torch.ones(2, 3)}
    with pytest.raises(DataError, match=message):
        TokenBatch.from_padded(**{**given, **change})


def test_from_padded_checks_the_tokens_it_keeps():
    logprobs = torch.tensor([[-1.0, math.nan], [-math.inf, -1.0]])
    fine = torch.full((2, 2), -1.0)
    TokenBatch.from_padded(logprobs, fine, torch.ones(2), torch.tensor([[1, 0], [0, 1]]))
    with pytest.raises(DataError, match=r"logprobs must be finite: 2 of 4 tokens are not, the first at index 1"):
        TokenBatch.from_padded(logprobs, fine, torch.ones(2), torch.ones(2, 2))
    assert len(TokenBatch.from_padded(logprobs, fine, torch.ones(2), torch.ones(2, 2), validate=False)) == 4


# ---- bad shapes and dtypes


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_logprobs_must_be_packed(shape: tuple[int, ...]):
    with pytest.raises(DataError, match=r"logprobs must be packed \[N\], got .* call TokenBatch\.from_padded"):
        TokenBatch(torch.zeros(shape), torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("field", [*FLOATS[1:], "sequence_ids"])
@pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
def test_shapes_must_agree(field: str, shape: tuple[int, ...]):
    with pytest.raises(DataError) as caught:
        TokenBatch(**{**arguments(4), field: torch.zeros(shape)})
    assert str(caught.value) == f"{field} must be [N] = [4] as logprobs is, got {list(shape)}"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("field", FLOATS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool], ids=str)
def test_floats_must_be_floats(field: str, dtype: torch.dtype):
    with pytest.raises(DataError) as caught:
        TokenBatch(**{**arguments(4), field: torch.zeros(4, dtype=dtype)})
    assert str(caught.value) == f"{field} must be floating point, got {dtype}; convert with .float()"


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool], ids=str)
def test_sequence_ids_must_be_int64(dtype: torch.dtype):
    with pytest.raises(DataError, match=rf"sequence_ids must be int64, got {dtype}; convert with \.long\(\)"):
        TokenBatch(**arguments(4), sequence_ids=torch.zeros(4, dtype=dtype))


# ---- bad values


@pytest.mark.parametrize("field", FLOATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_must_be_finite(field: str, bad: float):
    values = torch.full((7,), -0.5)
    values[2] = values[5] = bad
    with pytest.raises(DataError) as caught:
        TokenBatch(**{**arguments(7), field: values})
    text = str(caught.value)
    assert text.startswith(
        f"{field} must be finite: 2 of 7 tokens are not, the first at index 2 with {bad:g}. Mask such tokens"
    )
    TokenBatch(**{**arguments(7), field: values}, validate=False)


@pytest.mark.parametrize("field", ["logprobs", "behavior_logprobs", "proximal_logprobs"])
def test_log_probabilities_must_not_be_positive(field: str):
    values = torch.tensor([-1.0, 0.0, 9e-5, 2e-4, 0.7])
    with pytest.raises(DataError) as caught:
        TokenBatch(**{**arguments(5), field: values})
    assert str(caught.value).startswith(
        f"{field} must be ≤ 0 (they are log-probabilities in nats): 2 of 5 tokens are not, the first at "
        "index 3 with 0.0002."
    )
    TokenBatch(**{**arguments(3), field: values[:3]})  # up to 1e-4 it is rounding


def test_advantages_and_entropy_may_be_positive():
    TokenBatch(**{**arguments(2), "advantages": torch.tensor([5.0, -5.0])}, entropy=torch.tensor([0.0, 9.0]))


def test_sequence_ids_must_not_decrease():
    with pytest.raises(
        DataError,
        match=r"sequence_ids must not decrease \(sort the tokens by sequence\): 2 of 5 "
        r"tokens are not, the first at index 2 with 3",
    ):
        TokenBatch(**arguments(5), sequence_ids=torch.tensor([0, 4, 3, 3, 1]))
    TokenBatch(**arguments(5), sequence_ids=torch.tensor([-7, -7, 0, 0, 2**40]))


def test_the_first_problem_is_named_when_there_are_several():
    given = {
        **arguments(2),
        "behavior_logprobs": torch.tensor([1.0, math.nan]),
        "advantages": torch.tensor([math.inf] * 2),
    }
    with pytest.raises(DataError, match=r"^behavior_logprobs must be finite: 1 of 2 .* index 1 with nan"):
        TokenBatch(**given)


# ---- the top K


def topk_arguments(n: int = 4, k: int = 3) -> dict[str, Any]:
    return {
        **arguments(n),
        "topk_logprobs": torch.full((n, k), -2.0),
        "topk_behavior_logprobs": torch.full((n, k), -2.5),
        "topk_is_sampled": torch.zeros(n, k, dtype=torch.bool),
    }


@pytest.mark.parametrize("field", ["topk_logprobs", "topk_behavior_logprobs", "topk_is_sampled"])
@pytest.mark.parametrize("shape", [(4,), (3, 3), (4, 3, 1)], ids=str)
def test_topk_shapes(field: str, shape: tuple[int, ...]):
    wrong = torch.zeros(shape, dtype=topk_arguments()[field].dtype)
    with pytest.raises(DataError) as caught:
        TokenBatch(**{**topk_arguments(), field: wrong})
    assert str(caught.value) == f"{field} must be [N, K] with N = 4 as logprobs has, got {list(shape)}"


def test_topk_fields_agree_on_k_and_on_their_types():
    with pytest.raises(DataError, match=r"one K, got topk_logprobs 2, topk_behavior_logprobs 3"):
        TokenBatch(**{**topk_arguments(), "topk_logprobs": torch.full((4, 2), -2.0)})
    with pytest.raises(DataError, match=r"topk_is_sampled must be bool, got torch.float32; compare"):
        TokenBatch(**{**topk_arguments(), "topk_is_sampled": torch.zeros(4, 3)})
    with pytest.raises(DataError, match=r"topk_logprobs must be floating point, got torch.int64"):
        TokenBatch(**{**topk_arguments(), "topk_logprobs": torch.zeros(4, 3, dtype=torch.int64)})


@pytest.mark.parametrize(("bad", "rule"), [(math.nan, "finite"), (-math.inf, "finite"), (0.5, "≤ 0")])
def test_topk_values_are_checked(bad: float, rule: str):
    values = torch.full((4, 3), -2.0)
    values[2, 1] = bad
    with pytest.raises(DataError, match=rf"topk_logprobs must be {rule}.*1 of 4 tokens.*index 2 with {bad:g}"):
        TokenBatch(**{**topk_arguments(), "topk_logprobs": values})


def test_topk_of_padded_batches():
    given = {name: value.unsqueeze(0) for name, value in topk_arguments().items()}
    batch = TokenBatch.from_padded(**given, mask=torch.tensor([[1, 0, 1, 1]]))
    assert batch.topk_logprobs is not None and batch.topk_logprobs.shape == (3, 3)
    with pytest.raises(DataError, match=r"topk_logprobs must be \[B, T, K\] with \[B, T\] = \[1, 4\].*got \[1, 4\]"):
        TokenBatch.from_padded(**{**given, "topk_logprobs": given["logprobs"]}, mask=torch.ones(1, 4))
    with pytest.raises(DataError, match=r"entropy must be \[B, T\] with .*got \[1, 4, 3\]"):
        TokenBatch.from_padded(**given, entropy=given["topk_logprobs"], mask=torch.ones(1, 4))


def test_only_pi_of_the_topk_carries_a_gradient():
    given = {n: v.requires_grad_(True) if v.is_floating_point() else v for n, v in topk_arguments().items()}
    batch = TokenBatch(**given)
    assert batch.topk_logprobs is given["topk_logprobs"]
    assert batch.topk_behavior_logprobs is not None and not batch.topk_behavior_logprobs.requires_grad
