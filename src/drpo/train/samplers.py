"""The sampler that a configuration names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from drpo.errors import DrpoWarning
from drpo.model.policy import Policy
from drpo.rollouts import Sampler
from drpo.rollouts.options import SamplerContext
from drpo.train.config import TrainConfig


def warn(text: str) -> None:
    """A note, where nobody else listens."""
    warnings.warn(text, DrpoWarning, stacklevel=2)


def make_sampler(
    config: TrainConfig, policy: Policy, engine_log: Path | None = None, note: Callable[[str], None] = warn
) -> Sampler:
    """One that samples from the present weights of ``policy``, until it is given others; to be closed.

    Args:
        config: whose section ``sampler`` is read, and the precision of rollouts.
        policy: which is trained.
        engine_log: where an engine's output goes; default: a temporary file.
        note: told of failures of the engine that were survived.

    Raises:
        ConfigError: a package is missing, or an option would be ignored on this device.
    """
    context = SamplerContext(
        precision=config.sampling_precision,
        shares_model=config.shares_model,
        engine_log=engine_log,
        note=note,
        report_support=config.support_replay and config.sampling().is_truncated,
    )
    return config.make_sampler_options().make(policy, context)
