"""Softmax policies over the actions that start as the logging policy, exactly."""

from __future__ import annotations

import torch
from torch import nn

from drpo.errors import ConfigError, suggest
from examples.long_tail.environment import Bandit

HIDDEN = 32


class Policy(nn.Module):
    """π(a|x) = softmax_a ⟨w_a, tower(x)⟩, with every action's w_a trained.

    ``linear``: the tower is the context itself. ``mlp``: x + V₂ tanh(V₁ x), shared by all actions; V₂ starts at zero.
    """

    def __init__(self, bandit: Bandit, kind: str, generator: torch.Generator) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"unknown policy {kind!r}.{suggest(kind, KINDS)}")
        width = bandit.logging.shape[1]
        self.actions = nn.Parameter(bandit.logging.clone())
        self.first = self.second = None
        if kind == "mlp":
            self.first = nn.Parameter(torch.randn(HIDDEN, width, generator=generator) / width**0.5)
            self.second = nn.Parameter(torch.zeros(width, HIDDEN))

    def forward(self, contexts: torch.Tensor) -> torch.Tensor:
        """``[N, A]`` log π in nats, at ``contexts`` ``[N, 1 + d]``."""
        if self.first is not None and self.second is not None:
            contexts = contexts + (contexts @ self.first.T).tanh() @ self.second.T
        return (contexts @ self.actions.T).log_softmax(-1)


KINDS = ("linear", "mlp")
