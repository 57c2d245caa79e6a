"""Log-probabilities renormalized over the tokens that top-p, top-k or min-p kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_token_logprobs import LargestTensor, triton_here

import drpo
from drpo import Support, fused_loss, make_objective, token_logprobs
from drpo.errors import DataError

BACKENDS = ["reference", "chunked", pytest.param("triton", marks=triton_here)]


def inputs(count: int = 7, width: int = 5, vocabulary: int = 11, seed: int = 0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, width, generator=generator, dtype=dtype).requires_grad_(True)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype).requires_grad_(True)
    targets = torch.randint(vocabulary, (count,), generator=generator)
    return hidden, weight, targets


def some_support(targets: torch.Tensor, vocabulary: int, share: float = 0.4, seed: int = 1) -> Support:
    mask = torch.rand(len(targets), vocabulary, generator=torch.Generator().manual_seed(seed)) < share
    mask[torch.arange(len(targets)), targets] = True
    return Support.from_mask(mask)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_worked_out_by_hand(backend: str) -> None:
    # Logits 0, log 2, log 3, log 10 at temperature 1; of {1, 2} the second has 3/5.
    weight = torch.tensor([[1.0], [2.0], [3.0], [10.0]], dtype=torch.float64).log()
    logprobs, entropy = token_logprobs(
        torch.ones(1, 1).double(), weight, torch.tensor([2]), backend=backend, support=Support.from_rows([[2, 1]])
    )
    assert logprobs.exp().item() == pytest.approx(0.6, abs=1e-12)
    assert entropy.item() == pytest.approx(0.673011667009, abs=1e-11)  # −.6 log .6 − .4 log .4


@pytest.mark.parametrize("temperature", [0.7, None])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_a_softmax_over_the_logits_inside(backend: str, temperature: float | None) -> None:
    hidden, weight, targets = inputs()
    heat = torch.linspace(0.5, 2, 7).double() if temperature is None else temperature
    support = some_support(targets, 11)
    logprobs, entropy = token_logprobs(hidden, weight, targets, heat, backend, support)
    for row, ids in enumerate(support.tolists()):
        scale = heat[row] if isinstance(heat, torch.Tensor) else heat
        inside = (weight[ids] @ hidden[row] / scale).log_softmax(0)
        assert logprobs[row].item() == pytest.approx(inside[ids.index(int(targets[row]))].item(), abs=1e-12)
        assert entropy[row].item() == pytest.approx(-(inside.exp() * inside).sum().item(), abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend: str) -> None:
    hidden, weight, targets = inputs()
    support = some_support(targets, 11)
    assert torch.autograd.gradcheck(
        lambda hidden, weight: token_logprobs(hidden, weight, targets, 0.8, backend, support)[0], (hidden, weight)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_outside(backend: str) -> None:
    hidden, weight, targets = inputs(count=3)
    support = Support.from_rows([[int(target), 2, 5] for target in targets])
    token_logprobs(hidden, weight, targets, 1.0, backend, support)[0].sum().backward()
    assert weight.grad is not None
    touched = set(weight.grad.abs().sum(1).nonzero().flatten().tolist())
    assert touched <= {2, 5, *targets.tolist()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_whole_vocabulary_is_bit_identical_to_none(backend: str) -> None:
    hidden, weight, targets = inputs(dtype=torch.float32)
    whole = Support.from_mask(torch.ones(7, 11, dtype=torch.bool))
    found = []
    for support in (None, whole):
        logprobs, entropy = token_logprobs(hidden, weight, targets, 0.9, backend, support)
        found.append((logprobs, entropy, *torch.autograd.grad(logprobs.square().sum(), (hidden, weight))))
    assert all(torch.equal(plain, restricted) for plain, restricted in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["drpo", "dppo_tv", "m2po", "gspo"])
def test_fused_loss_equals_the_reference(name: str) -> None:
    hidden, weight, targets = inputs(count=40, vocabulary=30)
    support = some_support(targets, 30)
    behavior = token_logprobs(hidden + 0.1, weight, targets, 1.2, support=support)[0].detach()
    advantages = torch.linspace(-1, 1, 40).double()
    objective = make_objective(name)
    logprobs, _ = token_logprobs(hidden, weight, targets, 1.2, "reference", support)
    batch = drpo.TokenBatch(logprobs, behavior, advantages)
    expected = drpo.aggregate(objective(batch).loss, batch)
    out = fused_loss(
        hidden, weight, targets, objective, behavior_logprobs=behavior, advantages=advantages, temperature=1.2,
        support=support,
    )  # fmt: skip
    wanted = torch.autograd.grad(expected, (hidden, weight))
    got = torch.autograd.grad(out.loss, (hidden, weight))
    torch.testing.assert_close(out.loss, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=9), min_size=1, max_size=6), st.randoms())
def test_the_order_of_ids_changes_nothing(rows: list[list[int]], random) -> None:
    shuffled = [random.sample(row, len(row)) for row in rows]
    first, second = Support.from_rows(rows), Support.from_rows(shuffled)
    assert torch.equal(first.ids, second.ids) and torch.equal(first.offsets, second.offsets)
    assert first.tolists() == [sorted(set(row)) for row in rows]
    mask = first.mask(41)
    assert torch.equal(Support.from_mask(mask).ids, first.ids)
    bits = first.bitmask(41)
    unpacked = torch.stack([(bits[:, v // 32] >> (v % 32)) & 1 for v in range(41)], 1).bool()
    assert torch.equal(unpacked, mask)


def test_selects_and_concatenates() -> None:
    support = Support.from_rows([[1], [2, 3], [4, 5, 6], [7]])
    assert support[1:3].tolists() == [[2, 3], [4, 5, 6]]
    assert support[torch.tensor([True, False, True, False])].tolists() == [[1], [4, 5, 6]]
    assert support[torch.tensor([3, 1])].tolists() == [[7], [2, 3]]
    assert support[2:2].tolists() == []
    assert Support.concatenate([support[2:], support[:2]]).tolists() == [[4, 5, 6], [7], [1], [2, 3]]


Found = tuple[torch.Tensor, ...]


def dense(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, heat, support: Support) -> Found:
    """log π_S, entropy, and the gradients of Σ log π_S · (1, 2, …): plain autograd over whole logits in float64."""
    hidden, weight = (tensor.detach().double().requires_grad_(True) for tensor in (hidden, weight))
    scale = heat.unsqueeze(1) if isinstance(heat, torch.Tensor) else heat
    logits = (hidden @ weight.T / scale).masked_fill(~support.mask(len(weight)), -torch.inf)
    logprobs = logits.log_softmax(1)
    entropy = torch.special.entr(logprobs.exp()).sum(1)
    return _with_gradients(logprobs.gather(1, targets.unsqueeze(1)).squeeze(1), entropy, hidden, weight)


def restricted(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, heat, backend: str, support) -> Found:
    """The same of a backend."""
    return _with_gradients(*token_logprobs(hidden, weight, targets, heat, backend, support), hidden, weight)


def _with_gradients(logprobs: torch.Tensor, entropy: torch.Tensor, hidden: torch.Tensor, weight: torch.Tensor) -> Found:
    total = (logprobs * torch.arange(1, len(logprobs) + 1)).sum()
    return logprobs.detach(), entropy.detach(), *torch.autograd.grad(total, (hidden, weight))


@pytest.mark.parametrize("temperature", [0.7, None])
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradients_are_those_of_whole_logits(backend: str, temperature: float | None) -> None:
    hidden, weight, targets = inputs(count=70, vocabulary=101)  # more rows and columns than a block of the kernels
    heat = torch.linspace(0.5, 2, 70).double() if temperature is None else temperature
    support = some_support(targets, 101, share=0.2)
    wanted = dense(hidden, weight, targets, heat, support)
    torch.testing.assert_close(restricted(hidden, weight, targets, heat, backend, support), wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_inputs_round_the_gradients_alone(backend: str) -> None:
    hidden, weight, targets = inputs(count=9, dtype=torch.bfloat16)
    support = some_support(targets, 11)
    *nats, grad_hidden, grad_weight = restricted(hidden, weight, targets, 0.9, backend, support)
    *wanted, wide_hidden, wide_weight = dense(hidden, weight, targets, 0.9, support)
    assert all(found.dtype == torch.float32 for found in nats)
    torch.testing.assert_close(nats, [value.float() for value in wanted], rtol=0, atol=1e-5)
    assert grad_hidden.dtype == grad_weight.dtype == torch.bfloat16
    torch.testing.assert_close(grad_hidden.double(), wide_hidden, rtol=0.02, atol=0.1)
    torch.testing.assert_close(grad_weight.double(), wide_weight, rtol=0.02, atol=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_logits(backend: str, dtype: torch.dtype) -> None:
    # Logits from −60,000 to 60,000; the largest of every row are outside, or inside with another token sampled.
    weight = torch.tensor([[6e4], [-6e4], [5e4], [0.0], [-1.0], [5e4]], dtype=dtype).requires_grad_(True)
    hidden = torch.tensor([[1.0], [1.0], [1.0], [-1.0], [1e-4]], dtype=dtype).requires_grad_(True)
    targets = torch.tensor([3, 1, 2, 0, 4])
    support = Support.from_rows([[3, 4], [0, 1], [2, 5], [0, 1, 2], [3, 4]])
    found = restricted(hidden, weight, targets, 1.0, backend, support)
    # A logit of 60,000 in float32 is right to 0.004.
    room = {torch.float32: 0.008, torch.float64: 1e-11}[dtype]
    by_hand = [-0.313261687518, -120000, -0.693147180560, -120000, -0.693197181810]
    assert found[0].tolist() == pytest.approx(by_hand, rel=1e-6, abs=room)
    assert all(bool(value.isfinite().all()) for value in found)
    wanted = [value.to(dtype) for value in dense(hidden, weight, targets, 1.0, support)]
    for value, expected, size in zip(found, wanted, (1, 1, 6e4, 5), strict=True):  # what multiplies a probability
        torch.testing.assert_close(value, expected, rtol=0.01 * room, atol=room * size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_token_that_was_alone_is_certain_and_moves_nothing(backend: str, dtype: torch.dtype) -> None:
    hidden, weight, targets = inputs(dtype=dtype)
    alone = Support.from_rows([[int(target)] for target in targets])
    logprobs, entropy, *gradients = restricted(hidden, weight, targets, 0.7, backend, alone)
    assert not logprobs.any() and not entropy.any()
    # Of sums of up to 7 · |hidden|, which cancel.
    room = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    assert all(float(gradient.abs().max()) <= room for gradient in gradients)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_order_of_ids_reaches_no_value(backend: str) -> None:
    hidden, weight, targets = inputs()
    rows = some_support(targets, 11).tolists()
    found = [
        restricted(hidden, weight, targets, 0.8, backend, Support.from_rows(ids))
        for ids in (rows, [row[::-1] for row in rows], [row + row[:1] for row in rows])
    ]
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_shards_add_up(backend: str) -> None:
    hidden, weight, targets = inputs(count=9)
    support = some_support(targets, 11)
    whole, _, *gradients = restricted(hidden, weight, targets, 1.0, backend, support)
    parts = [slice(0, 4), slice(4, 4), slice(4, 9)]
    sums = [torch.zeros_like(gradient) for gradient in gradients]
    for part in parts:
        logprobs, _ = token_logprobs(hidden[part], weight, targets[part], 1.0, backend, support[part])
        torch.testing.assert_close(logprobs.detach(), whole[part], rtol=0, atol=1e-14)
        total = (logprobs * torch.arange(1, 10)[part]).sum()
        for added, gradient in zip(sums, torch.autograd.grad(total, (hidden, weight)), strict=True):
            added += gradient
    torch.testing.assert_close(sums, gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens(backend: str) -> None:
    hidden, weight, targets = inputs(count=0)
    logprobs, entropy, *gradients = restricted(hidden, weight, targets, 1.0, backend, Support.from_rows([]))
    assert logprobs.shape == entropy.shape == (0,)
    assert [gradient.shape for gradient in gradients] == [hidden.shape, weight.shape]
    assert not any(gradient.any() for gradient in gradients)


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), max_size=6), st.data())
def test_contains_is_that_of_sets(rows: list[list[int]], data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.integers(0, 41), min_size=len(rows), max_size=len(rows)))
    found = Support.from_rows(rows).contains(torch.tensor(targets, dtype=torch.int64))
    assert found.tolist() == [target in row for target, row in zip(targets, rows, strict=True)]


def test_the_check_makes_nothing_as_large_as_the_ids() -> None:
    count, size = 64, 4096
    support = Support(torch.arange(size, dtype=torch.int32).repeat(count), torch.arange(count + 1) * size)
    with LargestTensor() as seen:
        support.check(torch.full((count,), size - 1), size)
    assert seen.numbers < 8 * count


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sampled_token_outside_names_the_cause(backend: str) -> None:
    hidden, weight, _ = inputs(count=2)
    with pytest.raises(DataError, match=r"1 of 2 sampled tokens are outside .* index 1: token 4, whose support has 2"):
        token_logprobs(hidden, weight, torch.tensor([3, 4]), backend=backend, support=Support.from_rows([[3], [2, 5]]))
    with pytest.raises(DataError, match="the vocabulary has 11 tokens"):
        token_logprobs(hidden, weight, torch.tensor([3, 2]), backend=backend, support=Support.from_rows([[3], [2, 11]]))
    with pytest.raises(DataError, match="N = 2 tokens on cpu, got 1"):
        token_logprobs(hidden, weight, torch.tensor([3, 2]), backend=backend, support=Support.from_rows([[3]]))


def test_refuses_what_is_no_support() -> None:
    with pytest.raises(DataError, match="1 of 2 tokens have none, the first at index 1"):
        Support.from_rows([[1], []])
    with pytest.raises(DataError, match="integers in"):
        Support.from_rows([[-1]])
    with pytest.raises(DataError, match="integers in"):
        Support.from_rows([[0.5]])  # type: ignore[list-item]
    with pytest.raises(DataError, match="ascending"):
        Support(torch.tensor([2, 1], dtype=torch.int32), torch.tensor([0, 2]))
    with pytest.raises(DataError, match="rise from 0"):
        Support(torch.tensor([1, 2], dtype=torch.int32), torch.tensor([0, 2, 2]))
    with pytest.raises(DataError, match="int32"):
        Support(torch.tensor([1, 2]), torch.tensor([0, 2]))


@pytest.mark.parametrize(("tokens", "vocabulary"), [(4, 150_000), (600, 900)], ids=["long rows", "many rows"])
def test_ids_of_several_stretches_are_all_found(tokens: int, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(tokens, vocabulary, generator=generator) < torch.tensor([1.0, 0.9, 0.001, 0.5]).repeat(
        tokens // 4
    ).unsqueeze(1)
    mask[:, 0] = True
    support, values = Support.from_mask(mask), torch.randn(tokens, vocabulary, generator=generator)
    assert len(list(support._places(values))) > 2
    assert torch.equal(support.take(values), values[mask])
    assert torch.equal(support.restrict_(values.clone()), values.masked_fill(~mask, -torch.inf))
