"""Every objective as a policy loss of verl: ``loss_mode=drpo``, chosen and typed by :class:`DRPOPolicyLossConfig`.

The entry point ``verl.plugins`` imports this module with verl itself, through :mod:`drpo.integrations.verl`, on the
driver and in every worker. What runs is said in the configuration, never by which names are registered: verl's own
losses stay as they are.

Shapes: ``B`` sequences, ``T`` positions.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from verl.trainer.ppo.core_algos import agg_loss, register_policy_loss
from verl.workers.config import PolicyLossConfig

from drpo.batch import TokenBatch
from drpo.checks import is_positive
from drpo.errors import ConfigError, DataError
from drpo.integrations.padded import (
    PREFIX,
    check_first_mismatch,
    leave_out,
    loss_metrics,
    make_host_objective,
    padded_loss,
    require_whole_update,
)
from drpo.integrations.row_signal import RowSignal, warn_of_no_signal
from drpo.integrations.verl_plugin.checks import PRESET, SECTION, check_host, check_other_losses
from drpo.objectives import Objective

#: The one name in verl's registry.
LOSS_MODE = "drpo"

logger = logging.getLogger(__name__)


@dataclass
class _Running:
    """What a worker keeps between calls of its loss."""

    objective: Objective
    compared: bool = False
    signal: RowSignal = field(default_factory=RowSignal)


@dataclass
class DRPOPolicyLossConfig(PolicyLossConfig):
    """verl's section ``actor_rollout_ref.actor.policy_loss`` for our loss.

    Args:
        objective: a registry name, see ``drpo objectives``.
        parameters: keyword arguments of :func:`drpo.make_objective`, ``modifiers`` included.
        behavior: where the anchor comes from. ``rollout``: the log-probabilities of the engine that sampled.
            ``recomputed``: those that verl's trainer computes again before its first update.
        mismatch_limit: nats; the first call stops if the mean \\|log π − log μ\\| exceeds it.
        rollout_correction, host: what the rest of the configuration says, interpolated by the preset.

    Raises:
        ConfigError: an unknown objective or parameter, one that verl cannot feed, or a setting of verl's that would
            make this loss something else or be ignored.
    """

    loss_mode: str = LOSS_MODE
    rollout_correction: Any = None
    objective: str = "drpo"
    parameters: dict[str, Any] = field(default_factory=dict)
    behavior: str = "rollout"
    mismatch_limit: float = 0.1
    host: Any = None

    def __post_init__(self) -> None:
        if self.loss_mode != LOSS_MODE:
            raise ConfigError(
                f"{SECTION}.loss_mode={self.loss_mode} would run verl's loss of that name, and objective="
                f"{self.objective} would be ignored. Set loss_mode={LOSS_MODE}, or take away _target_."
            )
        if not is_positive(self.mismatch_limit):
            raise ConfigError(
                f"{SECTION}.mismatch_limit must be a finite number > 0 (nats), got {self.mismatch_limit!r}"
            )
        objective = make_host_objective("verl", self.objective, self.parameters)
        check_host(self.host, self.rollout_correction, self.behavior)
        check_other_losses(self)
        self.running = _Running(objective)


@register_policy_loss(LOSS_MODE)
def policy_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str,
    config: Any,
    rollout_is_weights: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The configured objective on one micro-batch, summed up by verl, and its metrics.

    Args:
        old_log_prob: ``[B, T]``, the anchor: μ with bypass_mode, else recomputed by verl.
        log_prob: ``[B, T]``, log π, with its gradient.
        advantages: ``[B, T]``.
        response_mask: ``[B, T]``; what the other positions hold does not matter.
        loss_agg_mode: one of verl's.
        config: verl's ActorConfig, with a :class:`DRPOPolicyLossConfig` as ``policy_loss``.
        rollout_is_weights: ``[B, T]`` factors on the per-token loss, which verl makes in its decoupled mode.

    Raises:
        ConfigError: another ``policy_loss`` section, or an objective that needs the whole update.
        MismatchError: the first call finds another policy's log-probabilities.
        DataError: values that are not finite or not log-probabilities.
    """
    section = config.get("policy_loss")
    if not isinstance(section, DRPOPolicyLossConfig):
        raise ConfigError(
            f"loss_mode={LOSS_MODE} without its configuration, which says the objective and where μ "
            f"comes from. Select both with the preset: {PRESET}"
        )
    running, info = section.running, config.global_batch_info
    whole = info["global_batch_size"] == len(response_mask)  # which counts the rows of all ranks
    require_whole_update(
        running.objective,
        whole,
        "verl",
        "Run one data-parallel rank with "
        "ppo_micro_batch_size_per_gpu = ppo_mini_batch_size × rollout.n, or take another objective.",
    )
    kept, left_out = leave_out(response_mask, old_log_prob, "verl")
    try:
        loss, batch = padded_loss(running.objective, log_prob, old_log_prob, advantages, kept)
    except DataError as error:
        raise DataError(f"verl's micro-batch (behavior_logprobs is its old_log_probs): {error}") from error
    if not running.compared and len(batch):
        compare_policies(batch, section)
        running.compared = True
    warn_of_no_signal(running.signal, batch, len(response_mask), info["global_batch_size"])
    if rollout_is_weights is not None:
        # Not 0 · weight: what a weight holds at a dropped position does not matter.
        loss = torch.where(kept, loss * rollout_is_weights, 0.0)
    total = agg_loss(loss_mat=loss, loss_mask=kept.to(response_mask.dtype), loss_agg_mode=loss_agg_mode, **info)
    metrics = loss_metrics(batch, running.objective, same_names=True)
    metrics[f"{PREFIX}left_out_share"] = left_out
    return total, {**metrics, f"{PREFIX}anchor_is_rollout": float(section.behavior == "rollout")}


def compare_policies(batch: TokenBatch, section: DRPOPolicyLossConfig) -> None:
    """Say where the anchor comes from, and refuse one that is not the policy about to be trained.

    Raises:
        MismatchError: the mean of \\|log π − log μ\\| exceeds ``mismatch_limit``.
    """
    mean, largest = check_first_mismatch("verl", batch, section.mismatch_limit, f"{SECTION}.mismatch_limit")
    # verl shows nothing below a warning.
    logger.warning(
        "drpo: objective %s; anchor: the %s policy, |log π − log μ| %.1e nats on average, at most %.1e",
        running_name(section),
        section.behavior,
        mean,
        largest,
    )


def running_name(section: DRPOPolicyLossConfig) -> str:
    """The objective with its parameters, for a log."""
    settings = section.running.objective.settings()
    return ", ".join([settings.pop("name"), *(f"{key}={value}" for key, value in settings.items())])
