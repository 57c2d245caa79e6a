"""The objectives as prime-rl's custom loss: ``[trainer.loss] type = "custom"``.

prime-rl calls the loss once a sequence, adds up what it returns and divides by the sum of the weights of the whole
optimizer step, which is its number of tokens where an algorithm sets no weights: a token mean, which is also the only
aggregation that a loss of one sequence can express.

Shapes: ``T`` positions of one sequence, prompt included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from drpo.batch import TokenBatch
from drpo.errors import ConfigError
from drpo.integrations.padded import (
    PREFIX,
    leave_out,
    make_host_objective,
    measurements,
    padded_loss,
    require_whole_update,
    sums_and_counts,
)
from drpo.objectives import Objective
from drpo.support import OUTSIDE

if TYPE_CHECKING:

    @dataclass
    class LossOutputs:
        loss: torch.Tensor
        metrics: dict[str, torch.Tensor]

else:
    try:
        from prime_rl.trainer.rl.loss import LossOutputs
    except ModuleNotFoundError:  # a test, or a look at the loss without the trainer

        @dataclass
        class LossOutputs:
            loss: torch.Tensor
            metrics: dict[str, torch.Tensor]


HOST = "prime-rl"
#: The fields of a TokenBatch that come from the tokens which sampling left.
HEAD = ("topk_logprobs", "topk_behavior_logprobs")
#: What is reported of every sequence: means over its tokens. prime-rl averages over sequences, so no extremes.
METRICS = (
    "ratio",
    "shift",
    "beyond_delta",
    "diverging_share",
    "mismatch",
    "k3_kl",
    "rare_share",
    "saturated_share",
    "weight",
    "corrective_share",
    "masked_share",
    "corrective_mass",
    "masked_mass",
)


class LossInputs(Protocol):
    """What prime-rl hands over for one sequence, each ``[T]``.

    Newer versions add ``trainer_mask_logprobs`` and ``inference_mask_logprobs``, None or ``[T, S]``: over the at most
    ``S`` tokens that truncated sampling left, 0 and -inf where there are fewer. Score centering reads them. With them
    log π is renormalized over these tokens already.
    """

    trainer_logprobs: torch.Tensor
    inference_logprobs: torch.Tensor
    advantages: torch.Tensor
    loss_mask: torch.Tensor
    loss_weights: torch.Tensor | None


def drpo_loss(
    inputs: LossInputs,
    *,
    objective: str = "drpo",
    parameters: Mapping[str, Any] | None = None,
    **unknown: object,
) -> LossOutputs:
    """The sum of the objective's loss over the kept tokens of one sequence, and its metrics as tensors.

    ``trainer_logprobs`` is log π (with its gradient), ``inference_logprobs`` log μ, ``loss_mask`` keeps a token,
    ``loss_weights`` (None: 1) multiplies its loss.

    Args:
        inputs: one sequence.
        objective: a name of :data:`drpo.OBJECTIVES`.
        parameters: keyword arguments of :func:`drpo.make_objective`, ``anchor`` and ``modifiers`` among them.
        **unknown: settings that this loss does not have; each is an error.

    Raises:
        ConfigError: an unknown setting, or an objective that prime-rl cannot feed.
        DataError: a kept log-probability is not finite or positive.
    """
    if unknown:
        raise ConfigError(
            f"trainer.loss.kwargs has no {', '.join(sorted(unknown))}. Known: objective, parameters; an "
            "objective's own settings go into parameters. There is no aggregation: prime-rl divides "
            "by the weights of the step."
        )
    made = make_host_objective(HOST, objective, parameters, gives=HEAD)
    require_whole_update(made, False, HOST, "prime-rl calls a loss once a sequence; use another objective.")
    mask, left_out = leave_out(inputs.loss_mask, inputs.inference_logprobs, HOST)
    loss, batch = padded_loss(
        made,
        inputs.trainer_logprobs.unsqueeze(0),
        inputs.inference_logprobs.unsqueeze(0),
        inputs.advantages.unsqueeze(0),
        mask.unsqueeze(0),
        **(_head(inputs, made) if made.topk else {}),
    )
    if inputs.loss_weights is not None:
        # Not 0 · weight: what a weight holds at a dropped position does not matter either.
        loss = torch.where(mask, loss[0] * inputs.loss_weights, 0.0)
    metrics = {**_metrics(batch, made), PREFIX + "left_out_share": torch.tensor(left_out, device=loss.device)}
    return LossOutputs(loss=loss.sum(), metrics=metrics)


def _head(inputs: LossInputs, objective: Objective) -> dict[str, torch.Tensor]:
    """log π and log μ ``[1, T, K]`` of the most likely of the tokens that sampling left.

    Raises:
        ConfigError: the trainer did not hand them over.
    """
    trainer, sampler = (getattr(inputs, f"{side}_mask_logprobs", None) for side in ("trainer", "inference"))
    if trainer is None or sampler is None:
        raise ConfigError(
            f"objective {objective.name!r} (or one of its modifiers) reads the log-probabilities of the tokens that "
            "sampling left, and LossInputs has no trainer_mask_logprobs and inference_mask_logprobs here. prime-rl "
            "fills them where it samples with top_p or top_k, replays them, and centers scores; otherwise leave the "
            "modifier out."
        )
    there = sampler.isfinite()
    behavior, chosen = sampler.masked_fill(~there, OUTSIDE).topk(min(objective.topk, sampler.shape[1]), dim=1)
    policy = trainer.masked_fill(~there, OUTSIDE).gather(1, chosen)
    return dict(zip(HEAD, (policy.unsqueeze(0), behavior.unsqueeze(0)), strict=True))


def _metrics(batch: TokenBatch, objective: Objective) -> dict[str, torch.Tensor]:
    """Every name for every sequence (prime-rl stacks them), 0 where a mean is over nothing, on the device."""
    found = measurements(batch, objective)
    parts = sums_and_counts({PREFIX + name: found[PREFIX + name] for name in METRICS}, batch.logprobs.device)
    means = (parts[:, 0] / parts[:, 1].clamp(min=1e-30)).float()
    return {PREFIX + name: mean for name, mean in zip(METRICS, means, strict=True)}
