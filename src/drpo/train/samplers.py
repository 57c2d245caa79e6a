"""The sampler that a configuration names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from drpo.errors import DrpoWarning
from drpo.rollouts import InProcessSampler, Sampler
from drpo.rollouts.options import InProcessOptions
from drpo.rollouts.vllm_sampler import VllmSampler, require_vllm
from drpo.train.config import TrainConfig
from drpo.train.policy import Policy


def warn(text: str) -> None:
    """A note, where nobody else listens."""
    warnings.warn(text, DrpoWarning, stacklevel=2)


def make_sampler(
    config: TrainConfig, policy: Policy, engine_log: Path | None = None, note: Callable[[str], None] = warn
) -> Sampler:
    """One that samples from the present weights of ``policy``; to be closed.

    Args:
        config: whose section ``sampler`` is read.
        policy: which is trained.
        engine_log: where an engine's output goes; default: a temporary file.
        note: told of failures of the engine that were survived.

    Raises:
        ConfigError: a package is missing, or an option would be ignored on this device.
    """
    options = config.make_sampler_options()
    if isinstance(options, InProcessOptions):
        return InProcessSampler(policy.model, policy.stop_ids, compiled=options.compiled)
    require_vllm()
    sampler = VllmSampler(policy.model, policy.stop_ids, options, engine_log, note)
    sampler.load_weights(policy.model.state_dict())
    return sampler
