"""Floors of FLOPs: counted by hand, and by torch over a model's own passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from drpo.bench.floor import floor_turn, forward_flops
from drpo.bench.models import SHAPES, make_model
from drpo.model.loading import load

pytestmark = pytest.mark.slow


def test_worked_out_by_hand() -> None:
    shape = {
        "hidden_size": 2,
        "intermediate_size": 3,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "vocab_size": 5,
    }
    # A layer has 4 · 2 · 2 + 3 · 2 · 3 = 34 weights. A prompt of 4 and two responses of 3 tokens: 4 + 2 · 2 = 8 places;
    # 6 tokens through a head of 10 weights; places seen: 16 / 2 + 2 · 2 · (4 + 1.5) = 30.
    assert forward_flops(shape, [4], 2, 3) == 2 * 34 * 8 + 4 * 2 * 30 + 2 * 10 * 6


@pytest.mark.parametrize("name", ["tiny Llama", "tiny Qwen3"])
def test_as_torch_counts(name: str, tmp_path: Path) -> None:
    """Of one response: all of its prompt and all of its tokens but the last one."""
    model = load(str(make_model(tmp_path / "model", name))).model
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.base_model(torch.zeros(1, 60 + 19, dtype=torch.int64))
    head = 2 * SHAPES[name]["hidden_size"] * SHAPES[name]["vocab_size"] * 20
    counted = forward_flops(SHAPES[name], [60], 1, 20) - head
    # torch counts a causal attention as a whole square, or not at all, by the kernel that it takes.
    inner = SHAPES[name]["num_attention_heads"] * (SHAPES[name].get("head_dim") or 8)
    attention = 4 * 2 * inner * 79**2 / 2
    assert abs(counter.get_total_flops() - counted) <= 1.1 * attention


def test_a_floor_is_the_work_at_the_rate_of_the_moment() -> None:
    turn = floor_turn(lambda: 1e6, lambda: 7.0, "cpu", "float32", quick=True)()
    assert turn.tokens == 7 and turn.seconds == pytest.approx(1e6 / (turn.figures["tflops"] * 1e12))
