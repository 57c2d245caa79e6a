"""Parity's batch through prime-rl's documented contract for a custom loss.

prime-rl is not on a package index and needs CUDA, so its side is written down here from its documentation
(docs/algorithms.md, "Custom Loss", 0.8.0): one call a sequence, whose first position is padding; the results are added
up over the sequences and micro-batches of a step and divided by the step's number of kept tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from drpo.aggregation import Mode
from drpo.integrations.parity import Padded, names
from drpo.integrations.prime_rl import drpo_loss


@dataclass
class LossInputs:
    trainer_logprobs: torch.Tensor
    inference_logprobs: torch.Tensor
    ref_logprobs: torch.Tensor | None
    advantages: torch.Tensor
    loss_mask: torch.Tensor
    loss_weights: torch.Tensor | None = None


def inputs(padded: Padded, row: int, logprobs: torch.Tensor, weights: torch.Tensor | None = None) -> LossInputs:
    """Sequence ``row``: position 0 is log(1/V), then prompt and response, of which the mask keeps the response."""

    def shifted(values: torch.Tensor, first: float) -> torch.Tensor:
        return torch.cat([values.new_full((1,), first), values])

    advantages = padded.advantages[row].expand(padded.mask.shape[1])
    return LossInputs(
        trainer_logprobs=shifted(logprobs, -math.log(1000)),
        inference_logprobs=shifted(padded.behavior_logprobs[row], 0.0),
        ref_logprobs=None,
        advantages=shifted(advantages, 0.0),
        loss_mask=shifted(padded.mask[row].double(), 0.0).bool(),
        loss_weights=None if weights is None else shifted(weights, 0.0),
    )


def step(padded: Padded, loss: Callable[[LossInputs], Any], micro_batches: int = 1) -> torch.Tensor:
    """``[B, T]``: the gradient of one optimizer step, as the trainer accumulates it."""
    tokens = int(padded.mask.sum())
    gradients = []
    for part in padded.micro_batches(micro_batches):
        leaf = part.logprobs.clone().requires_grad_(True)
        total = torch.stack([loss(inputs(part, row, leaf[row])).loss for row in range(len(leaf))]).sum() / tokens
        gradients.append(torch.autograd.grad(total, leaf)[0])
    return torch.cat(gradients)


class PrimeRLPath:
    host = "prime-rl"
    #: Of the documentation that the contract was taken from.
    version = "0.8.0 (contract)"
    dtype = torch.float64
    modes: tuple[Mode, ...] = ("token_mean",)
    objectives = tuple(names())

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        parameters = {key: settings[key] for key in settings if key != "name"}
        return step(
            padded, lambda one: drpo_loss(one, objective=settings["name"], parameters=parameters), micro_batches
        )


def make_path() -> PrimeRLPath:
    return PrimeRLPath()
