"""verl's own configuration, composed by Hydra as ``python -m verl.trainer.main_ppo`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from verl.utils.config import omega_conf_to_dataclass

SECTION = "actor_rollout_ref.actor.policy_loss"
PRESET = ("hydra.searchpath=[pkg://drpo.integrations.verl_presets]", "+drpo=rollout_anchored")
#: What verl itself insists on.
REQUIRED = (
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.model.path=none",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    "trainer.n_gpus_per_node=1",
    "algorithm.adv_estimator=grpo",
)


def composed(overrides: Sequence[str] = (), preset: Sequence[str] = PRESET, name: str = "ppo_trainer") -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, overrides=[*REQUIRED, *preset, *overrides])


def actor_config(overrides: Sequence[str] = (), **section: Any) -> Any:
    """The ActorConfig that a worker makes, with ``section`` set in its policy_loss."""
    return instantiated(composed(overrides), **section)


def instantiated(config: DictConfig, **section: Any) -> Any:
    """As a worker makes it: resolved by the task runner, then turned into dataclasses."""
    OmegaConf.resolve(config)
    for key, value in section.items():
        OmegaConf.update(config, f"{SECTION}.{key}", value, merge=False, force_add=True)
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)
