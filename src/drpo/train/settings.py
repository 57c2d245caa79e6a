"""The few values of a configuration that each part of a run takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from drpo.advantages import Kind
from drpo.aggregation import Reduction
from drpo.diagnostics import DEFAULT_DELTA
from drpo.model.forward import ForwardSettings, default_micro_batch_tokens
from drpo.objectives import Objective
from drpo.rollouts import SamplingParameters
from drpo.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """What an update takes beside its samples: how token losses become one number (the denominator is the update's
    own), its forward passes, the largest gradient norm, and the |π − μ| that the reported shares count against."""

    reduction: Reduction
    forward: ForwardSettings
    gradient_clip: float
    delta: float


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """What a rollout batch takes beside its problems: responses to each, how they are sampled, how their rewards become
    advantages, and the run's seed."""

    group_size: int
    sampling: SamplingParameters
    advantages: Kind
    seed: int


def forward_settings(config: TrainConfig, device: torch.device) -> ForwardSettings:
    """How log π is recomputed on ``device``."""
    return ForwardSettings(config.temperature, config.micro_batch_tokens or default_micro_batch_tokens(device))


def reduction(config: TrainConfig) -> Reduction:
    """How token losses become one number."""
    return Reduction(config.aggregation, horizon=config.horizon)


def rollout_settings(config: TrainConfig, objective: Objective) -> RolloutSettings:
    """What every rollout batch of a run takes."""
    sampling = replace(config.sampling(), report_topk=objective.topk, report_support=config.support_replay)
    return RolloutSettings(config.group_size, sampling, config.advantages, config.seed)


def update_settings(config: TrainConfig, objective: Objective, device: torch.device) -> UpdateSettings:
    """What every update of a run takes."""
    delta = config.delta_shown or objective.shift_bound or DEFAULT_DELTA
    return UpdateSettings(reduction(config), forward_settings(config, device), config.gradient_clip, delta)
