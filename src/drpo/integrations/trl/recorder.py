"""The token log of TRL's own losses: look at a GRPOTrainer before anything in it is changed.

Shapes: ``B`` sequences of a micro-batch, ``T`` completion positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from trl import GRPOTrainer  # pyright: ignore[reportAttributeAccessIssue]

from drpo.batch import TokenBatch
from drpo.checks import is_count
from drpo.errors import ConfigError
from drpo.integrations.trl import host
from drpo.integrations.trl.tokens import TrainerTokens
from drpo.integrations.trl.trainer import HOW_TO_GET_MU, DRPOTrainer
from drpo.token_log import LIMIT


def record(trainer: Any, *, limit: int = LIMIT) -> None:
    """Write the token log of a GRPOTrainer's own loss to ``OUTPUT_DIR/tokens``, for `drpo inspect`.

    Call it before ``trainer.train()``. It changes nothing of the training: it keeps what the loss computes. The main
    process writes what it trains itself.

    Args:
        trainer: TRL's GRPOTrainer or a subclass.
        limit: no response is added to an optimizer step that has as many tokens.

    Raises:
        ConfigError: it is another trainer, μ cannot arrive, or it is recorded already.
    """
    _check(trainer, limit)
    if trainer.accelerator.is_main_process:
        _Recorder(trainer, limit)


class _Recorder:
    """Stands in front of two methods of ``trainer``: the loss, and the forward pass in it."""

    def __init__(self, trainer: Any, limit: int):
        self.trainer = trainer
        self.tokens = TrainerTokens(trainer.args.output_dir, trainer._tokenizer, limit)
        self.sampled_at = 0
        self.seen: list[tuple[torch.Tensor, torch.Tensor | None]] | None = None
        self.loss, self.forward = trainer._compute_loss, getattr(trainer, host.FORWARD_METHOD)
        trainer._compute_loss = self.compute_loss
        setattr(trainer, host.FORWARD_METHOD, self.run_forward)

    def run_forward(self, *arguments: Any, **keywords: Any) -> Any:
        """TRL's forward pass; within the loss, its log π and entropy ``[B, T]`` are kept."""
        found = self.forward(*arguments, **keywords)
        if self.seen is not None:
            logprobs, entropy = found[:2]
            self.seen.append((logprobs.detach(), None if entropy is None else entropy.detach()))
        return found

    def compute_loss(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        """TRL's loss; in training, its tokens are written."""
        self.seen = []
        try:
            loss = self.loss(model, inputs)
            if self.trainer.model.training:
                self.write(inputs, self.seen)
        finally:
            self.seen = None
        return loss

    def write(self, inputs: Mapping[str, Any], seen: list[tuple[torch.Tensor, torch.Tensor | None]]) -> None:
        """Append the tokens of a micro-batch."""
        behavior = inputs.get("sampling_per_token_logps")
        if behavior is None:
            raise ConfigError(f"TRL hands over no sampling_per_token_logps, so that μ is missing. {HOW_TO_GET_MU}")
        if len(seen) != 1:
            raise host.unsupported(f"the loss calls {host.FORWARD_METHOD} {len(seen)} times, not once")
        logprobs, entropy = seen[0]
        proximal = inputs.get("old_per_token_logps")
        step = self.trainer.state.global_step
        if host.begins_rollouts(self.trainer):
            self.sampled_at = step
        kept = (inputs["completion_mask"] * inputs.get("tool_mask", 1)).bool()
        batch = TokenBatch.from_padded(
            logprobs,
            behavior,
            inputs["advantages"],
            kept,
            proximal_logprobs=logprobs if proximal is None else proximal,
            entropy=entropy,
            validate=False,  # `drpo inspect` says what is wrong with them
        )
        self.tokens.add(batch, inputs["completion_ids"][kept], step=step + 1, update=step - self.sampled_at)


def _check(trainer: Any, limit: Any) -> None:
    if not isinstance(trainer, GRPOTrainer):
        raise ConfigError(f"record needs a GRPOTrainer of TRL, got {type(trainer).__name__}")
    if isinstance(trainer, DRPOTrainer):
        raise ConfigError("DRPOTrainer writes the log itself: set log_tokens=True in its DRPOConfig")
    host.check_trl()
    if not is_count(limit):
        raise ConfigError(f"limit must be a whole number of tokens above 0, got {limit!r}")
    if "_compute_loss" in vars(trainer):
        raise ConfigError(
            "the trainer's loss is wrapped already; call record once, on a trainer without other wrappers"
        )
    if not trainer.use_vllm and trainer.rollout_func is None:
        raise ConfigError(
            f"no μ to record: TRL's own generate returns no log-probabilities of the sampled tokens. {HOW_TO_GET_MU}"
        )
