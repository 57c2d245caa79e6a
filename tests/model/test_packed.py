"""Sequences side by side in one row give what each gives alone, in float64 to the last digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drpo.errors import ConfigError
from drpo.model.forward import PACKED, PADDED, Sequences, micro_batches, response_states
from drpo.model.packed import Block, Packing, attending
from drpo.model.start_check import check_passes
from support import tiny

#: Heads that share keys, and heads that do not.
MODELS = {groups: tiny.model(num_attention_heads=4, num_key_value_heads=groups).double() for groups in (2, 4)}
TOKENS = st.lists(st.integers(3, 19), min_size=1, max_size=9)
ROWS = st.lists(st.tuples(st.integers(0, 2), TOKENS), min_size=1, max_size=7)
PROMPTS = [[4], [5, 6, 7, 8, 9], [10, 11, 12]]


def answers(model: Any, sequences: Sequence[Sequences], way: str) -> list[torch.Tensor]:
    """The states ``[N, H]`` made in one ``way``, and the gradient of a number made from them."""
    model.zero_grad()
    states = response_states(model.base_model, sequences, way)
    (states * torch.linspace(-1, 1, states.numel(), dtype=states.dtype).view_as(states)).sum().backward()
    return [states.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def largest_difference(ours: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """As a share of the largest entry."""
    apart = max(float((a - b).abs().max()) for a, b in zip(ours, right, strict=True))
    return apart / max(float(b.abs().max()) for b in right)


@given(ROWS, st.sampled_from(sorted(MODELS)))
@example([(0, [7])], 2)  # nothing but a prompt goes into the model
@example([(1, [7, 8, 9]), (0, [7])], 2)  # nothing is shared, and the prompts stand in another order
@example([(1, [7]), (1, [8])], 2)
@example([(0, [7]), (0, [7, 8, 9])], 4)  # one response of several goes in
@example([(2, [3] * 9), (0, [4]), (2, [5]), (0, [6, 7])], 2)  # the prompts in another order than the responses
@settings(deadline=None)
def test_states_and_gradients_are_those_of_each_sequence_alone(rows: list[tuple[int, list[int]]], groups: int) -> None:
    sequences = [Sequences(PROMPTS[prompt], tokens) for prompt, tokens in rows]
    model = MODELS[groups]
    alone = [answers(model, [sequence], PADDED) for sequence in sequences]
    found = answers(model, sequences, PACKED)
    states = [part[0] for part in alone]
    assert found[0].shape == (sum(len(tokens) for _, tokens in rows), 32)
    assert largest_difference(found[:1], [torch.cat(states)]) <= 1e-6  # this model normalizes in float32
    assert largest_difference(found, answers(model, sequences, PADDED)) <= 1e-6


def test_only_real_tokens_go_through_the_model() -> None:
    prompts, responses = [[4], [5, 6, 7]], [[8, 9], [10], [11, 12, 13, 14]]
    packing = Packing(prompts, responses, [1, 0, 1], torch.device("cpu"))
    assert packing.ids.tolist() == [[4, 5, 6, 7, 8, 11, 12, 13]]
    assert packing.positions.tolist() == [[0, 0, 1, 2, 3, 3, 4, 5]]
    # Before the first token of a response is its prompt's last state.
    assert packing.before.tolist() == [3, 4, 0, 3, 5, 6, 7]


def test_a_response_follows_its_prompt_where_nothing_is_shared() -> None:
    """Attention over a long response alone must not make a mask of all pairs of its tokens."""
    packing = Packing([[4, 5], [6]], [[7, 8, 9], [10, 11]], [1, 0], torch.device("cpu"))
    assert packing.ids.tolist() == [[6, 7, 8, 4, 5, 10]]
    assert packing.positions.tolist() == [[0, 1, 2, 0, 1, 2]]
    assert packing.before.tolist() == [0, 1, 2, 4, 5]
    packing.states(tiny.model().model)
    assert packing._mask is None


def test_padding_passes_no_gradient_back() -> None:
    block = Block([2, 0, 3], torch.device("cpu"))
    values = torch.arange(10.0).view(5, 1, 2).requires_grad_()
    padded = block.pad(values)
    assert padded.shape == (3, 1, 3, 2)
    assert padded[0, 0, :2].tolist() == [[0, 1], [2, 3]] and padded[2, 0].tolist() == [[4, 5], [6, 7], [8, 9]]
    assert torch.equal(block.unpad(padded), values)
    weight = torch.arange(1.0, 19).view(3, 1, 3, 2)
    (gradient,) = torch.autograd.grad((padded * weight).sum(), values)
    assert torch.equal(gradient, block.unpad(weight))


def test_the_models_own_attention_is_there_again_afterwards() -> None:
    model = tiny.model()
    packing = Packing([[4]], [[5, 6]], [0], torch.device("cpu"))
    with pytest.raises(RuntimeError, match="stop"), attending(model.config, packing):
        assert model.config._attn_implementation == "drpo_packed"
        raise RuntimeError("stop")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("option", ["softcap", "position_bias", "s_aux"])
def test_attention_that_does_more_is_not_packed(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny.model()
    attention = type(model.model.layers[0].self_attn)
    before = attention.forward
    monkeypatch.setattr(
        attention, "forward", lambda self, *given, **named: before(self, *given, **named, **{option: 1.0})
    )
    packing = Packing([[4]], [[5, 6]], [0], torch.device("cpu"))
    with pytest.raises(ConfigError, match=f"knows no {option}"):
        packing.states(model.model)


def test_another_attention_than_sdpa_is_not_packed() -> None:
    model = tiny.model()
    assert check_passes(model).trainer.way == PACKED
    model.config._attn_implementation = "eager"
    passes = check_passes(model)
    assert passes.trainer.way == "shared prompts" and "eager" in passes.trainer.refused[PACKED]


def test_a_model_that_takes_no_row_of_several_sequences_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that looks at its neighbor, outside of attention, is found out."""
    model: Any = tiny.model()
    mlp = model.model.layers[0].mlp
    before = mlp.forward
    monkeypatch.setattr(
        mlp, "forward", lambda states: before(states + states.roll(1, 1).index_fill(1, torch.tensor([0]), 0))
    )
    passes = check_passes(model)
    assert passes.trainer.way == PADDED and "nats from a plain pass" in passes.trainer.refused[PACKED]


def test_a_micro_batch_is_full_of_tokens() -> None:
    """Two prompts of 2 and 1 tokens, and all but the last token of each response: 3 + 1 + 8 + 3 positions."""
    sequences = [Sequences([5, 6], [7] * 2), Sequences([5, 6], [7] * 9), Sequences([4], [7] * 4)]
    assert micro_batches(sequences, 15, PACKED) == [[0, 1, 2]]
    assert micro_batches(sequences, 14, PACKED) == [[0, 1], [2]]
