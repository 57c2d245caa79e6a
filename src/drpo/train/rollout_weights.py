"""Which weights a step is sampled from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import torch


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
