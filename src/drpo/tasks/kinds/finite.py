"""Tasks with a finite set of problems: both sides are lists, and training goes through its own epoch by epoch."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import Any

from drpo.errors import ConfigError
from drpo.tasks.base import Example
from drpo.tasks.split import item_seed


class FiniteTask(ABC):
    """A task that only says what its problems are; a subclass calls :meth:`load` at the end of its ``__init__``."""

    _sides: tuple[list[Example], list[Example]] | None = None
    _order: tuple[tuple[int, int], list[int]] | None = None

    @abstractmethod
    def read(self) -> tuple[list[Example], list[Example]]:
        """The training examples, at least one, in the source's order; and the held-out ones.

        Raises:
            DataError: the source is malformed.
        """

    @abstractmethod
    def reward(self, example: Example, text: str) -> float:
        """The reward of a response, in [0, 1]; 1 is right."""

    def load(self) -> tuple[list[Example], list[Example]]:
        """Both sides, read once in each process that needs them."""
        if self._sides is None:
            self._sides = self.read()
        return self._sides

    def training_examples(self) -> list[Example]:
        """All of the training side, in the source's order."""
        return list(self.load()[0])

    def training_example(self, seed: int, index: int) -> Example:
        """Index n·epoch + i is the i-th of the n training examples in that epoch's order.

        Raises:
            ConfigError: the index is negative.
        """
        if index < 0:
            raise ConfigError(f"index of a training example: got {index}, must be 0 or more")
        training, _ = self.load()
        epoch, place = divmod(index, len(training))
        return training[self._epoch_order(seed, epoch, len(training))[place]]

    def heldout_examples(self, count: int) -> list[Example]:
        """The first ``count`` held-out examples.

        Raises:
            ConfigError: the count is negative.
        """
        if count < 0:
            raise ConfigError(f"count of held-out examples: got {count}, must be 0 or more")
        return self.load()[1][:count]

    def __getstate__(self) -> dict[str, Any]:
        """Without the examples: grading does not need them, and a copy that does reads the source again."""
        return {**self.__dict__, "_sides": None, "_order": None}

    def _epoch_order(self, seed: int, epoch: int, size: int) -> list[int]:
        if self._order is None or self._order[0] != (seed, epoch):
            rng = random.Random(item_seed("epoch", seed, epoch))
            # Not shuffle(): random() alone is promised to stay the same in later Pythons.
            keys = [rng.random() for _ in range(size)]
            self._order = (seed, epoch), sorted(range(size), key=keys.__getitem__)
        return self._order[1]


def check_fraction(task: str, fraction: Any) -> float:
    """``heldout_fraction`` of a task, in (0, 1).

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float):
        raise ConfigError(f"{task}: heldout_fraction must be a number, got {fraction!r}")
    if not 0 < fraction < 1:
        raise ConfigError(f"{task}: heldout_fraction must be between 0 and 1, got {fraction}")
    return float(fraction)
