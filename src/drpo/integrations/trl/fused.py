"""When the loss is computed from hidden states, without logits, and how these come out of the trained model.

Shapes: ``B`` sequences of a micro-batch, ``T`` completion positions, ``L`` prompt and completion positions, ``N`` kept
tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from drpo.batch import TokenBatch
from drpo.integrations.trl import host
from drpo.kernels import fused_loss

#: From the hidden states ``[B, L, H]`` and the LM head ``[V, H]`` to what the model's forward pass returns.
OfHidden = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]


def hand_out_hidden(model: Any) -> None:
    """Make ``model(…, of_hidden=f)`` return ``f(hidden states, LM head)``; without ``of_hidden`` nothing changes.

    ``f`` runs within the forward pass, because what wraps a model to train it on several processes prepares the
    gradients' exchange there.
    """
    usual = model.forward

    # generate() reads the signature.
    @functools.wraps(type(model).forward)
    def forward(self: Any, *arguments: Any, of_hidden: OfHidden | None = None, **keywords: Any) -> Any:
        if of_hidden is None:
            return usual(*arguments, **keywords)
        hidden = self.base_model(*arguments, use_cache=False, **keywords).last_hidden_state
        return of_hidden(hidden, self.get_output_embeddings().weight)

    model.forward = types.MethodType(forward, model)


def why_not_fused(trainer: Any, inputs: Mapping[str, Any]) -> str | None:
    """Why this loss needs TRL's own log-probabilities, in words for the log; None if hidden states will do."""
    needs = trainer.objective.needs
    wrapped = trainer.model_wrapped
    reasons = {
        "beta ≠ 0: the KL to the reference needs log π and its gradient": trainer.beta != 0.0,
        "entropy_coef ≠ 0: the bonus needs the entropy's gradient": trainer.entropy_coef != 0.0,
        "the auxiliary loss of a mixture of experts comes with TRL's": trainer.aux_loss_enabled,
        "the objective decides by the entropy of this very pass": "entropy" in needs,
        "the objective is anchored on π_old, which TRL leaves out where it is π": "proximal_logprobs" in needs
        and inputs.get("old_per_token_logps") is None,
        "inputs beyond token ids": not host.forward_parameters().isdisjoint(inputs),
        "fp16: its loss scaling comes after the gradients are made": trainer.args.fp16
        or trainer.model.dtype == torch.float16,
        "the model is sharded or compiled (FSDP, DeepSpeed, torch.compile)": trainer.is_fsdp_enabled
        or not (wrapped is trainer.model or isinstance(wrapped, DistributedDataParallel)),
        "the model is adapted (PEFT)": not isinstance(trainer.model, PreTrainedModel),
        "the model is spread over devices": len({p.device for p in trainer.model.parameters()}) > 1,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is None and not trainer.head_is_plain:
        return "the LM head is more than a matrix (a bias, scale, soft cap or adapter)"
    return reason


def loss_from_hidden(
    trainer: Any,
    model: Any,
    inputs: Mapping[str, Any],
    kept: torch.Tensor,
    batch: TokenBatch,
    aggregation: Mapping[str, Any],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss, and log π and entropy ``[N]`` as constants; the LM head sees the ``kept`` ``[B, T]`` positions alone.

    Args:
        trainer: whose objective and temperature they are.
        model: ``trainer.model`` as it is wrapped.
        inputs: TRL's.
        kept: bool.
        batch: the kept tokens; its log π do not matter.
        aggregation: of :func:`drpo.fused_loss`: ``mode``, ``denominator``, ``horizon``.
    """

    def of_hidden(hidden: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states = hidden[:, -kept.shape[1] - 1 : -1][kept]
        dtype = head_dtype(trainer, states)
        # Evaluation needs no gradients, which would be made here and now.
        weight = weight if torch.is_grad_enabled() else weight.detach()
        with torch.autocast(states.device.type, enabled=False):
            found = fused_loss(
                states.to(dtype),
                weight.to(dtype),
                inputs["completion_ids"][kept],
                trainer.objective,
                behavior_logprobs=batch.behavior_logprobs,
                advantages=batch.advantages,
                sequence_ids=batch.sequence_ids,
                proximal_logprobs=batch.proximal_logprobs,
                temperature=trainer.temperature,
                **aggregation,
            )
        return found.loss, found.logprobs, found.entropy

    with trainer.accelerator.autocast():
        return model(
            input_ids=torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            of_hidden=of_hidden,
        )


def head_dtype(trainer: Any, states: torch.Tensor) -> torch.dtype:
    """What the LM head computes in, as TRL's does."""
    if trainer.args.cast_lm_head_to_fp32:
        return torch.float32
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
