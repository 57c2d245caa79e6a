"""Gradient weights of single tokens over π and μ, as plain arrays for pictures.

A token stands alone in its sequence. Its other fields say as little as they can: π_old = μ, and a top K that holds the
sampled token alone, so that a divergence of distributions is the binary one.
"""

from __future__ import annotations

import numpy as np
import torch

from drpo.batch import TokenBatch
from drpo.errors import ConfigError
from drpo.objectives.base import Objective, gradient_weight


def token_weights(objective: Objective, policy: np.ndarray, behavior: np.ndarray, advantage: float) -> np.ndarray:
    """The gradient weight at each pair of probabilities; same shape as ``policy`` and ``behavior``.

    Raises:
        ConfigError: the objective decides over a whole update, so that no token has a weight of its own.
    """
    if not objective.sequence_local:
        raise ConfigError(
            f"{objective.name} decides over all tokens of an update together: a token by itself has no "
            "gradient weight to draw. Leave it out."
        )
    pi, mu = (torch.from_numpy(np.broadcast_to(p, policy.shape).astype(np.float64).ravel()) for p in (policy, behavior))
    batch = TokenBatch(
        pi.log(),
        mu.log(),
        torch.full_like(pi, advantage),
        sequence_ids=torch.arange(len(pi)),
        proximal_logprobs=mu.log(),
        entropy=torch.zeros_like(pi),
        topk_logprobs=pi.log().unsqueeze(1),
        topk_behavior_logprobs=mu.log().unsqueeze(1),
        topk_is_sampled=torch.ones(len(pi), 1, dtype=torch.bool),
    )
    return gradient_weight(objective, batch).numpy().reshape(policy.shape)
