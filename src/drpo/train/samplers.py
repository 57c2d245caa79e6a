"""The sampler that a configuration names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from drpo.errors import DrpoWarning
from drpo.model.lora import is_adapted, plain_weights
from drpo.model.policy import Policy
from drpo.rollouts import CopySampler, InProcessSampler, Sampler
from drpo.rollouts.options import InProcessOptions
from drpo.rollouts.vllm.sampler import VllmSampler, require_vllm
from drpo.train.config import TrainConfig


def warn(text: str) -> None:
    """A note, where nobody else listens."""
    warnings.warn(text, DrpoWarning, stacklevel=2)


def make_sampler(
    config: TrainConfig, policy: Policy, engine_log: Path | None = None, note: Callable[[str], None] = warn
) -> Sampler:
    """One that samples from the present weights of ``policy``, until it is given others; to be closed.

    In this process it shares the policy's model where what it would sample from is always that model, else it has a
    copy.

    Args:
        config: whose section ``sampler`` is read, and the precision of rollouts.
        policy: which is trained.
        engine_log: where an engine's output goes; default: a temporary file.
        note: told of failures of the engine that were survived.

    Raises:
        ConfigError: a package is missing, or an option would be ignored on this device.
    """
    options = config.make_sampler_options()
    if isinstance(options, InProcessOptions):
        if config.shares_model:
            return InProcessSampler(policy.model, policy.stop_ids, **options.model_dump())
        return CopySampler(policy.model, config.sampling_precision, policy.stop_ids, **options.model_dump())
    require_vllm()
    sampler = VllmSampler(
        policy.model,
        policy.stop_ids,
        options,
        engine_log,
        note,
        dtype="float32" if config.sampling_precision == "fp32" else "bfloat16",
    )
    # vLLM knows whole matrices alone: an adapter that is evaluated is added into them.
    sampler.load_weights(plain_weights(policy.model) if is_adapted(policy.model) else policy.weights())
    return sampler
