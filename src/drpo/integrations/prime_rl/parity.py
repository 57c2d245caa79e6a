"""Parity's batch through prime-rl's documented contract for a custom loss.

prime-rl is not on a package index and needs CUDA, so its side is written down here from its documentation
(docs/algorithms.md, "Custom Loss", 0.8.0) and from its ``trainer/rl/loss.py`` of autumn 2026: one call a sequence,
whose first position is padding, and none for a sequence whose weights are all 0; the results are added up over the
sequences and micro-batches of a step and divided by the sum of the step's weights, which is its number of kept tokens
where there are none. The inputs have the fields of the newer source, or those of 0.8.0 alone.
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

#: How many tokens of the sampler's support the newer inputs have at each position.
SUPPORT = 3


@dataclass
class LossInputs:
    """The fields of 0.8.0."""

    trainer_logprobs: torch.Tensor
    inference_logprobs: torch.Tensor
    ref_logprobs: torch.Tensor | None
    advantages: torch.Tensor
    loss_mask: torch.Tensor
    loss_weights: torch.Tensor | None = None


@dataclass
class NewerLossInputs(LossInputs):
    """With the sampler's support ``[T, SUPPORT]``: log π is 0 where there is none, log μ is -inf."""

    trainer_mask_logprobs: torch.Tensor | None = None
    inference_mask_logprobs: torch.Tensor | None = None


def inputs(
    padded: Padded,
    row: int,
    logprobs: torch.Tensor,
    weights: torch.Tensor | None = None,
    made: type[LossInputs] = LossInputs,
) -> LossInputs:
    """Sequence ``row``: position 0 is log(1/V), then prompt and response, of which the mask keeps the response.

    Args:
        padded: the batch.
        row: which sequence.
        logprobs: ``[T]``, log π, with its gradient.
        weights: ``[T]``, the weights that prime-rl's algorithms put on tokens; a weight of 0 drops the token.
        made: which version's fields.
    """

    def shifted(values: torch.Tensor, first: float) -> torch.Tensor:
        return torch.cat([values.new_full((1,), first), values])

    advantages = padded.advantages[row].expand(padded.mask.shape[1])
    keep = padded.mask[row] if weights is None else padded.mask[row] & (weights != 0)
    positions = len(keep) + 1
    support: dict[str, torch.Tensor] = {}
    if made is NewerLossInputs:
        support["trainer_mask_logprobs"] = shifted(logprobs, 0.0).unsqueeze(1).repeat(1, SUPPORT)
        support["inference_mask_logprobs"] = torch.full((positions, SUPPORT), -math.inf)
    return made(
        trainer_logprobs=shifted(logprobs, -math.log(1000)),
        inference_logprobs=shifted(padded.behavior_logprobs[row], 0.0),
        ref_logprobs=None,
        advantages=shifted(advantages, 0.0),
        loss_mask=shifted(keep.double(), 0.0).bool(),
        loss_weights=None if weights is None else shifted(weights, 0.0),
        **support,
    )


def step(
    padded: Padded,
    loss: Callable[[LossInputs], Any],
    micro_batches: int = 1,
    weights: torch.Tensor | None = None,
    made: type[LossInputs] = LossInputs,
) -> torch.Tensor:
    """``[B, T]``: the gradient of one optimizer step, as the trainer accumulates it.

    Args:
        padded: the batch.
        loss: a custom loss.
        micro_batches: into how many parts the step is cut.
        weights: ``[B, T]``, as in :func:`inputs`.
        made: as in :func:`inputs`.
    """
    scale = float(padded.mask.sum() if weights is None else weights[padded.mask].sum())
    gradients, rows = [], iter(range(len(padded.mask)))
    for part in padded.micro_batches(micro_batches):
        leaf = part.logprobs.clone().requires_grad_(True)
        total = leaf[0].sum() * 0.0  # prime-rl's anchor for a micro-batch without tokens
        for row in range(len(leaf)):
            weight = None if weights is None else weights[next(rows)]
            one = inputs(part, row, leaf[row], weight, made)
            if weight is None or bool(one.loss_mask.any()):
                total = total + loss(one).loss
        gradients.append(torch.autograd.grad(total / scale, leaf)[0])
    return torch.cat(gradients)


class PrimeRLPath:
    host = "prime-rl"
    #: Of the documentation that the contract was taken from, and the month up to which the source was read.
    version = "0.8.0 to autumn 2026 (contract)"
    dtype = torch.float64
    modes: tuple[Mode, ...] = ("token_mean",)
    objectives = tuple(names())

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        parameters = {key: settings[key] for key in settings if key != "name"}

        def loss(one: LossInputs) -> Any:
            return drpo_loss(one, objective=settings["name"], parameters=parameters)

        return step(padded, loss, micro_batches, made=NewerLossInputs)


def make_path() -> PrimeRLPath:
    return PrimeRLPath()
