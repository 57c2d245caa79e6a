"""SkyRL's training run with our loss: what ``python -m drpo.integrations.skyrl`` starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import ray
from skyrl.backends.skyrl_train.training_batch import TrainingInputBatch
from skyrl.train.config import SkyRLTrainConfig, make_config
from skyrl.train.entrypoints.main_base import BasePPOExp
from skyrl.train.trainer import RayPPOTrainer
from skyrl.train.utils import validate_cfg
from skyrl.train.utils.utils import initialize_ray

from drpo.errors import ConfigError
from drpo.integrations.skyrl import DRPOAlgorithmConfig, check, register


class DRPOTrainer(RayPPOTrainer):
    """SkyRL's trainer, which computes log π_old only where something reads it."""

    def _skip_policy_forward(self, training_input: TrainingInputBatch) -> bool:
        # SkyRL does so for those of its own losses that are anchored on the rollout.
        algorithm = self.cfg.trainer.algorithm
        return (
            "proximal_logprobs" not in algorithm.make_objective().needs
            and training_input.get("rollout_logprobs", None) is not None
            and not algorithm.use_kl_in_reward
        )


class DRPOExp(BasePPOExp):
    def get_trainer(self, **parts: Any) -> RayPPOTrainer:
        return DRPOTrainer(**parts)


@ray.remote(num_cpus=1)
def skyrl_entrypoint(cfg: SkyRLTrainConfig) -> None:
    DRPOExp(cfg).run()


def configuration(arguments: Sequence[str]) -> SkyRLTrainConfig:
    """SkyRL's typed configuration from ``key.path=value`` arguments, validated by SkyRL and by us.

    Raises:
        ConfigError: what is wrong and how to fix it.
    """
    cfg = make_config(algorithm_cls=DRPOAlgorithmConfig).from_cli_overrides(list(arguments))
    if cfg.trainer.fully_async.enabled:
        raise ConfigError(
            "trainer.fully_async.enabled=true: this entry point runs SkyRL's synchronous trainer. Write "
            "one for FullyAsyncRayPPOTrainer that calls drpo.integrations.skyrl.register and check."
        )
    register()
    check(cfg)
    validate_cfg(cfg)
    return cfg


def main(arguments: Sequence[str] | None = None) -> None:
    cfg = configuration(sys.argv[1:] if arguments is None else arguments)
    initialize_ray(cfg)
    ray.get(skyrl_entrypoint.remote(cfg))  # pyright: ignore[reportFunctionMemberAccess]
