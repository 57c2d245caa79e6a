"""The lines of a token log in the layout of our own trainer: a dict a response, its tokens as lists."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from drpo.batch import TokenBatch
from drpo.divergence import at_least_float32

#: The fields of a batch that are written, those that are there.
FIELDS = ("logprobs", "behavior_logprobs", "proximal_logprobs", "entropy")


def lists_by_response(batch: TokenBatch, lengths: Sequence[int]) -> list[dict[str, list[float]]]:
    """What ``batch`` knows of its tokens, one dict for each response; ``lengths`` add up to ``N``."""
    fields = {
        name: at_least_float32(values.detach()).cpu().split(list(lengths))
        for name in FIELDS
        if (values := getattr(batch, name)) is not None
    }
    return [{name: _shortest(parts[row]) for name, parts in fields.items()} for row in range(len(lengths))]


def _shortest(values: torch.Tensor) -> list[float]:
    """``[N]`` float32 with no more digits than tell them apart."""
    return [float(str(value)) for value in values.float().numpy()]
