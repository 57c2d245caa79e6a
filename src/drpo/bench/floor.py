"""The floor of a step: the operations of its matrix products, at the rate that the device multiplies matrices with.

Counted are the layers' products and attention, and the LM head at the places that predict a response token; two
operations for a product and its sum. A prompt counts once for all of its responses. Sampling is one forward pass over
them; an update is one more, and a backward pass that costs two. No method avoids these products, short of sharing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from drpo.bench.frame import Turn, synchronize

#: The variant of that name.
FLOOR = "floor"
#: Forward passes that sampling, and sampling with one update, cost.
SAMPLING, STEP = 1, 4
#: Edge of the largest matrices that are multiplied to see the rate, and seconds for which each size is.
EDGE, SECONDS = 2048, 0.3


def forward_flops(shape: Mapping[str, Any], prompts: Sequence[int], group: int, length: float) -> float:
    """Operations of one forward pass.

    Args:
        shape: the model's config.json: hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
            num_key_value_heads, vocab_size, and head_dim where it is not hidden_size / num_attention_heads.
        prompts: tokens of each prompt.
        group: responses to each.
        length: mean tokens of a response.
    """
    hidden, layers, heads = shape["hidden_size"], shape["num_hidden_layers"], shape["num_attention_heads"]
    inner = heads * (shape.get("head_dim") or hidden // heads)
    keys = inner // heads * shape["num_key_value_heads"]
    weights = layers * hidden * (2 * inner + 2 * keys + 3 * shape["intermediate_size"])
    responses = group * len(prompts)
    # A response's last token is sampled and never read; its first is predicted by the prompt's last position.
    positions = sum(prompts) + responses * (length - 1)
    seen = sum(count * count / 2 + group * (length - 1) * (count + length / 2) for count in prompts)
    head = hidden * shape["vocab_size"] * responses * length
    return 2 * weights * positions + 4 * layers * inner * seen + 2 * head


def matrix_rate(device: str, dtype: str, quick: bool = False) -> float:
    """Operations a second of the best of some square products, over :data:`SECONDS` each."""
    best = 0.0
    for edge in (64,) if quick else (EDGE // 4, EDGE) if device == "cpu" else (EDGE, 4 * EDGE):
        left, right = (torch.randn(edge, edge, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
        out = left @ right
        synchronize(device)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < (0.01 if quick else SECONDS):
            for _ in range(1 if device == "cpu" else 10):
                torch.mm(left, right, out=out)
                count += 1
            synchronize(device)
        best = max(best, 2 * edge**3 * count / (time.perf_counter() - started))
    return best


def floor_turn(
    flops: Callable[[], float], tokens: Callable[[], float], device: str, dtype: str, quick: bool = False
) -> Callable[[], Turn]:
    """A turn that measures the rate now and says how long ``flops`` take at it.

    Args:
        flops: operations of the work.
        tokens: response tokens that the work makes.
        device: a torch device.
        dtype: that of the factors.
        quick: for so short a time that the figure means nothing.
    """

    def turn() -> Turn:
        rate = matrix_rate(device, dtype, quick)
        return Turn(flops() / rate, tokens(), {"tflops": rate / 1e12})

    return turn
