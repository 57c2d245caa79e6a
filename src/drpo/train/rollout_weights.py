"""Which weights a step is sampled from, and the sampler in this process that is given them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from drpo.rollouts import CopySampler, InProcessSampler
from drpo.train.config import TrainConfig
from drpo.train.policy import Policy


def in_process_sampler(config: TrainConfig, policy: Policy) -> InProcessSampler:
    """One that shares the policy's model where what it would sample from is always that model, else one with a copy."""
    if config.shares_model:
        return InProcessSampler(policy.model, policy.stop_ids, compiled=config.compiled_sampler)
    return CopySampler(
        policy.model, config.sampling_precision, policy.stop_ids, compiled=config.compiled_sampler
    )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The policy's weights after ``step`` steps and ``updates`` updates, by their names in its state dict."""

    step: int
    updates: int
    weights: dict[str, torch.Tensor]


class RolloutWeights:
    """The weights of the last steps: a step samples from those of ``lag`` steps before it, or, while there are not so
    many, from the first.

    Args:
        lag: ≥ 0; so many copies of the weights are held.
        kept: what was held when a run was interrupted, oldest first.
    """

    def __init__(self, lag: int, kept: Iterable[Snapshot] = ()):
        self.lag = lag
        self._kept = deque(kept, maxlen=lag)

    def next(self, now: Snapshot) -> Snapshot:
        """What the next step samples from, given the weights as they are ``now``; to be called once a step."""
        chosen = self._kept[0] if self._kept else now
        if self.lag:
            copies = {name: weight.detach().clone() for name, weight in now.weights.items()}
            self._kept.append(Snapshot(now.step, now.updates, copies))
        return chosen

    def kept(self) -> list[Snapshot]:
        """What a checkpoint needs to go on, oldest first."""
        return list(self._kept)
