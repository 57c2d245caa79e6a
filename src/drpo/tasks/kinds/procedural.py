"""Endless tasks: every problem is generated from a seed, and the hash of its prompt decides its side."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator

from drpo.errors import ConfigError, TaskError
from drpo.tasks.base import Example
from drpo.tasks.split import HELDOUT_ONE_IN, is_heldout, item_seed

#: Draws without a training prompt, or without a new held-out one, after which a side counts as used up.
MAX_FRUITLESS_DRAWS = 1000
#: Draws in a row that a generator may fail at before that is an error.
MAX_FAILED_DRAWS = 20


class ProceduralTask(ABC):
    """A task that only says how to make one example from a seed; the two sides follow from it.

    Attributes:
        name: what messages call this task.
    """

    def __init__(self, name: str):
        self.name = name
        self._heldout: list[Example] = []
        self._heldout_asked = 0

    @abstractmethod
    def draw(self, seed: int) -> Example:
        """The example of this seed, in [0, 2³¹); it depends on nothing else.

        Raises:
            TaskError: none can be made from this seed; the stream passes on to its next draw.
        """

    @abstractmethod
    def reward(self, example: Example, text: str) -> float:
        """The reward of a response, in [0, 1]; 1 is right."""

    def training_example(self, seed: int, index: int) -> Example:
        """The first draw at this place of the stream whose prompt is not held out.

        Raises:
            ConfigError: the index is negative.
            TaskError: there is no training prompt, or the generator keeps failing.
        """
        if index < 0:
            raise ConfigError(f"index of a training example: got {index}, must be 0 or more")
        draws = itertools.islice(self._draws("training", seed, index), MAX_FRUITLESS_DRAWS)
        for example in draws:
            if not is_heldout(example.prompt):
                return example
        raise self._too_small("training")

    def heldout_examples(self, count: int) -> list[Example]:
        """The first ``count`` distinct prompts of the held-out side; fewer where the task has not that many.

        Raises:
            ConfigError: the count is negative.
            TaskError: there is no held-out prompt, or the generator keeps failing.
        """
        if count < 0:
            raise ConfigError(f"count of held-out examples: got {count}, must be 0 or more")
        if count > self._heldout_asked:
            self._heldout = list(itertools.islice(self._distinct_heldout(), count))
            self._heldout_asked = count
        if count and not self._heldout:
            raise self._too_small("held-out")
        return self._heldout[:count]

    def _distinct_heldout(self) -> Iterator[Example]:
        seen: set[str] = set()
        fruitless = 0
        for example in self._draws("heldout"):
            if is_heldout(example.prompt) and example.prompt not in seen:
                seen.add(example.prompt)
                fruitless = 0
                yield example
                continue
            fruitless += 1
            if fruitless == MAX_FRUITLESS_DRAWS:
                return

    def _draws(self, *stream: int | str) -> Iterator[Example]:
        """What the draws of one stream give, in order, without end; a seed that gives none is passed over."""
        failed = 0
        for attempt in itertools.count():
            try:
                example = self.draw(item_seed(*stream, attempt))
            except TaskError:
                failed += 1
                if failed == MAX_FAILED_DRAWS:
                    raise
                continue
            failed = 0
            yield example

    def _too_small(self, side: str) -> TaskError:
        return TaskError(
            f"{self.name} has no {side} prompt: {MAX_FRUITLESS_DRAWS} draws gave none. One prompt in "
            f"{HELDOUT_ONE_IN} is held out, so a task needs dozens of different prompts. Choose parameters "
            "that allow more of them."
        )
