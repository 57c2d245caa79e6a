"""The objectives in ms-swift's GRPO: a file for ``--external_plugins`` that calls :func:`use`.

ms-swift imports such a file before it looks up its trainer, whose path :func:`use` replaces. Nothing else of ms-swift
changes: rollouts, rewards and advantages are its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swift.trainers.trainer_factory import TrainerFactory

from drpo.checks import is_positive
from drpo.errors import ConfigError
from drpo.integrations.padded import make_host_objective
from drpo.objectives import Objective

HOST = "ms-swift"
#: What ms-swift then loads for ``--rlhf_type grpo``.
TRAINER = "drpo.integrations.ms_swift.trainer.DRPOTrainer"


@dataclass(frozen=True)
class Settings:
    """What :func:`use` was called with."""

    objective: Objective
    mismatch_limit: float


#: The only state: ms-swift makes the trainer itself and has no argument for these.
_settings: list[Settings] = []


def use(
    objective: str = "drpo", parameters: Mapping[str, Any] | None = None, *, mismatch_limit: float = 0.1
) -> Settings:
    """Make ``--rlhf_type grpo`` train under ``objective``; call it in a file of ``--external_plugins``.

    Args:
        objective: a name of :data:`drpo.OBJECTIVES`.
        parameters: keyword arguments of :func:`drpo.make_objective`, ``anchor`` and ``modifiers`` among them.
        mismatch_limit: nats; the run stops if the mean \\|log π − log μ\\| of the first micro-batch exceeds it.

    Raises:
        ConfigError: an unknown objective or parameter, one that ms-swift cannot feed, or its Megatron trainer.
    """
    if "swift.megatron" in sys.modules:
        raise ConfigError(
            "`megatron rlhf` has a trainer of its own, which would ignore the objective. Use `swift rlhf`."
        )
    if not is_positive(mismatch_limit):
        raise ConfigError(f"mismatch_limit must be a finite number > 0 (nats), got {mismatch_limit!r}")
    made = make_host_objective(HOST, objective, parameters, gives=("proximal_logprobs",))
    _settings[:] = [Settings(made, mismatch_limit)]
    TrainerFactory.TRAINER_MAPPING["grpo"] = TRAINER
    return _settings[0]


def settings() -> Settings:
    """What the trainer runs with; the defaults of :func:`use` if nobody called it."""
    return _settings[0] if _settings else use()


__all__ = ["HOST", "TRAINER", "Settings", "settings", "use"]
