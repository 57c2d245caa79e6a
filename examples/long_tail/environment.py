"""A recommender whose truth is known: contexts, items that a Zipf law makes popular, clicks, and a log of a softmax.

Shapes: ``N`` interactions, ``A`` actions (items), ``d`` features of a context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from drpo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Space:
    """What there is to choose from, and how the logging policy chooses.

    Args:
        actions: how many.
        zipf: exponent of their popularity under the logging policy, rank^−zipf at a context of zeros; 0: uniform.
        features: of a context.
        informed: correlation of the logging policy's taste vectors with the true ones, in [−1, 1].
        sharpness: nats by which a taste one standard deviation above the mean raises an action's log-probability.
        intercept: log-odds of a click on an action of average affinity.
        gain: nats of log-odds that one standard deviation of affinity is worth.
    """

    actions: int
    zipf: float
    features: int = 8
    informed: float = 0.5
    sharpness: float = 1.0
    intercept: float = -2.0
    gain: float = 1.5

    def __post_init__(self) -> None:
        if self.actions < 2 or self.features < 1 or not abs(self.informed) <= 1:
            raise ConfigError(f"a space needs actions ≥ 2, features ≥ 1 and informed in [−1, 1], got {self}")


@dataclass(frozen=True)
class Bandit:
    """The hidden model of clicks and the logging policy μ, both linear in a context x with a 1 put in front.

    Args:
        clicks: ``[A, 1 + d]``, log-odds of a click.
        logging: ``[A, 1 + d]``, logits of μ.
    """

    clicks: torch.Tensor
    logging: torch.Tensor

    def click_probabilities(self, contexts: torch.Tensor) -> torch.Tensor:
        """``[N, A]``, the true expected rewards at ``contexts`` ``[N, 1 + d]``."""
        return (contexts @ self.clicks.T).sigmoid_()

    def logging_logprobs(self, contexts: torch.Tensor) -> torch.Tensor:
        """``[N, A]``, log μ in nats."""
        return (contexts @ self.logging.T).log_softmax(-1)

    def contexts(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """``[count, 1 + d]``: a 1, then standard normal features."""
        features = torch.randn(count, self.clicks.shape[1] - 1, generator=generator)
        return torch.cat([torch.ones(count, 1), features], dim=1)


@dataclass(frozen=True)
class Log:
    """What the logging policy did and saw; every tensor one entry an interaction.

    Args:
        contexts: ``[N, 1 + d]``.
        actions: ``[N]`` int64.
        behavior_logprobs: ``[N]``, log μ of the action taken, in nats.
        rewards: ``[N]``, 1 for a click, else 0.
        advantages: ``[N]``, reward minus :func:`baseline`.
    """

    contexts: torch.Tensor
    actions: torch.Tensor
    behavior_logprobs: torch.Tensor
    rewards: torch.Tensor
    advantages: torch.Tensor


def make_bandit(space: Space, generator: torch.Generator) -> Bandit:
    """A world drawn at random. Popularity says nothing of quality: an action's rank and its affinities are independent.

    Affinity is ⟨x, e_a⟩/√d with standard normal taste vectors e_a; the logging policy sees taste vectors that
    correlate with them, and prefers low ranks.
    """
    shape = space.actions, space.features
    tastes = torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    seen = space.informed * tastes + math.sqrt(1 - space.informed**2) * noise
    ranks = torch.arange(1, space.actions + 1, dtype=torch.float32)
    scale = 1 / math.sqrt(space.features)
    clicks = torch.cat([torch.full((space.actions, 1), space.intercept), space.gain * scale * tastes], dim=1)
    logging = torch.cat([-space.zipf * ranks.log()[:, None], space.sharpness * scale * seen], dim=1)
    return Bandit(clicks, logging)


def make_log(bandit: Bandit, size: int, generator: torch.Generator) -> Log:
    """``size`` interactions of the logging policy, with their probabilities."""
    contexts = bandit.contexts(size, generator)
    parts = [_interact(bandit, part, generator) for part in contexts.split(512)]
    actions, behavior, rewards = (torch.cat(column) for column in zip(*parts, strict=True))
    return Log(contexts, actions, behavior, rewards, rewards - baseline(contexts, rewards))


def _interact(
    bandit: Bandit, contexts: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logprobs = bandit.logging_logprobs(contexts)
    actions = torch.multinomial(logprobs.exp(), 1, generator=generator)
    clicks = bandit.click_probabilities(contexts).gather(1, actions)
    rewards = torch.bernoulli(clicks, generator=generator)
    return actions.squeeze(1), logprobs.gather(1, actions).squeeze(1), rewards.squeeze(1)


def baseline(contexts: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """``[N]``: the least-squares regression of the rewards ``[N]`` on the contexts ``[N, 1 + d]``, an estimate of
    what μ earns there."""
    # In float64: LAPACK's last digits depend on where its memory lies, and a seed's advantages must not.
    wide, targets = contexts.double(), rewards.double()[:, None]
    return (wide @ torch.linalg.lstsq(wide, targets).solution).squeeze(1).to(rewards.dtype)


@dataclass(frozen=True)
class Jury:
    """Held-out contexts at which a policy's true expected reward is worked out, action by action.

    Args:
        contexts: ``[N, 1 + d]``.
        clicks: ``[N, A]``, the true click probabilities there.
    """

    contexts: torch.Tensor
    clicks: torch.Tensor

    def value(self, logprobs: torch.Tensor) -> float:
        """The expected reward of the policy with ``logprobs`` ``[N, A]``: no sampling over actions, no estimate."""
        return float((logprobs.exp() * self.clicks).sum(1).double().mean())

    @property
    def best(self) -> float:
        """What the best action at every context earns."""
        return float(self.clicks.amax(1).double().mean())


def make_jury(bandit: Bandit, size: int, generator: torch.Generator) -> Jury:
    """``size`` new contexts with the truth about them."""
    contexts = bandit.contexts(size, generator)
    return Jury(contexts, bandit.click_probabilities(contexts))
