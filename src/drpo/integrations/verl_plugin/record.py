"""The token log of verl's own losses: ``loss_mode=drpo_record`` runs the configured loss of verl's and logs its tokens.

Shapes: ``B`` sequences, ``T`` positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn, register_policy_loss
from verl.workers.config import PolicyLossConfig

from drpo.batch import TokenBatch
from drpo.checks import is_count
from drpo.errors import ConfigError, suggest
from drpo.integrations.verl_plugin.checks import SECTION, check_recorded
from drpo.integrations.verl_plugin.loss import LOSS_MODE
from drpo.run_directory import numbered_files
from drpo.token_log import LIMIT, TokenLog

#: The name in verl's registry.
RECORD_MODE = "drpo_record"
#: What selects it, as Hydra overrides.
RECORD_PRESET = "'hydra.searchpath=[pkg://drpo.integrations.verl_presets]' +drpo=record"


class _Recording:
    """What a worker keeps between calls: the log, and how far the update is. verl shows a loss no step, so that
    optimizer steps are counted, on from the files that are there."""

    def __init__(self, path: str, limit: int):
        self._path, self._limit = path, limit
        self._log: TokenLog | None = None
        self._step = self._rows = 0

    def add(self, batch: TokenBatch, rows: int, info: Mapping[str, Any]) -> None:
        """Write the tokens of a micro-batch of ``rows`` sequences; ``info`` is verl's global_batch_info."""
        if self._log is None:
            self._log = TokenLog(self._path, limit=self._limit)
            self._step = 1 + max((step for step, _ in numbered_files(Path(self._path), "step")), default=0)
        self._log.add(batch, step=self._step)
        self._rows += rows
        if self._rows * info["dp_size"] >= info["global_batch_size"]:
            self._step, self._rows = self._step + 1, 0


@dataclass
class DRPORecordConfig(PolicyLossConfig):
    """verl's section ``actor_rollout_ref.actor.policy_loss`` for one of verl's own losses, recorded.

    Args:
        loss: the loss that runs, a ``loss_mode`` of verl's.
        path: the folder of the token log.
        limit: no response is added to an optimizer step that has as many tokens.
        rollout_correction, host: what the rest of the configuration says, interpolated by the preset.

    Raises:
        ConfigError: no such loss of verl's, or a setting without which μ does not reach the loss.
    """

    loss_mode: str = RECORD_MODE
    loss: str = "vanilla"
    path: str = ""
    limit: int = LIMIT
    rollout_correction: Any = None
    host: Any = None

    def __post_init__(self) -> None:
        if self.loss_mode != RECORD_MODE:
            raise ConfigError(
                f"{SECTION}.loss_mode={self.loss_mode} would run that loss without a record. Set "
                f"loss_mode={RECORD_MODE} and loss={self.loss_mode}."
            )
        own = sorted(set(POLICY_LOSS_REGISTRY) - {LOSS_MODE, RECORD_MODE})
        if self.loss not in own:
            raise ConfigError(f"{SECTION}.loss: verl has no loss {self.loss!r} of its own.{suggest(self.loss, own)}")
        if not self.path:
            raise ConfigError(f"{SECTION}.path is empty: it names the folder of the token log")
        if not is_count(self.limit):
            raise ConfigError(f"{SECTION}.limit must be a whole number of tokens above 0, got {self.limit!r}")
        check_recorded(self.host, self.rollout_correction, RECORD_PRESET)
        self.recording = _Recording(self.path, self.limit)


@register_policy_loss(RECORD_MODE)
def recorded_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str,
    config: Any,
    rollout_is_weights: torch.Tensor | None = None,
    **further: Any,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """What verl's loss ``config.policy_loss.loss`` returns for these arguments; rank 0 writes the tokens.

    Args:
        old_log_prob: ``[B, T]``, log μ with bypass_mode.
        log_prob: ``[B, T]``, log π, with its gradient.
        advantages: ``[B, T]``.
        response_mask: ``[B, T]``.
        loss_agg_mode: one of verl's.
        config: verl's ActorConfig, with a :class:`DRPORecordConfig` as ``policy_loss``.
        rollout_is_weights: handed on.
        further: handed on.

    Raises:
        ConfigError: another ``policy_loss`` section, or a batch whose number of sequences verl does not say.
        WriteError: the disk refuses.
    """
    section = config.get("policy_loss")
    if not isinstance(section, DRPORecordConfig):
        raise ConfigError(
            f"loss_mode={RECORD_MODE} without its configuration, which says which loss of verl's runs. Select both "
            f"with the preset: {RECORD_PRESET}"
        )
    found = get_policy_loss_fn(section.loss)(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        loss_agg_mode=loss_agg_mode,
        config=config,
        rollout_is_weights=rollout_is_weights,
        **further,
    )
    if rank() == 0:
        if config.global_batch_info.get("global_batch_size") is None:
            raise ConfigError(f"loss_mode={RECORD_MODE}: verl does not say how many sequences an optimizer step has")
        # `drpo inspect` says what is wrong with the values.
        batch = TokenBatch.from_padded(
            log_prob.detach(), old_log_prob.detach(), advantages.detach(), response_mask.bool(), validate=False
        )
        section.recording.add(batch, len(response_mask), config.global_batch_info)
    return found


def rank() -> int:
    """Of this process."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
