"""Tasks whose rewards misbehave, as a user's own might (`python:support.user_tasks:NAME`)."""

from __future__ import annotations

import time

from drpo.tasks.base import Example
from drpo.tasks.builtin.copy import CopyTask


class SometimesRaises(CopyTask):
    """Fails on the prompts that start with "a": about a quarter."""

    def reward(self, example: Example, text: str) -> float:
        if example.prompt.startswith("a"):
            raise ValueError("no grade for a")
        return super().reward(example, text)


class MostlyRaises(CopyTask):
    def reward(self, example: Example, text: str) -> float:
        if not example.prompt.startswith("a"):
            raise ValueError("no grade but for a")
        return super().reward(example, text)


class HangsOnce(CopyTask):
    """Hangs on one prompt in sixteen."""

    def reward(self, example: Example, text: str) -> float:
        if example.prompt == "ab":
            time.sleep(3600)
        return super().reward(example, text)


class SometimesLong(CopyTask):
    """Every fifth training prompt does not fit into the 256 positions of the tests' model, and every seventh holds half
    of a surrogate pair."""

    def training_example(self, seed: int, index: int) -> Example:
        example = super().training_example(seed, index)
        long = "abcd" * 80 if index % 5 == 4 else example.prompt
        return Example(long + ("\ud800" if index % 7 == 6 else ""), example.answer, example.data)


class AlwaysLong(CopyTask):
    def training_example(self, seed: int, index: int) -> Example:
        return Example("abcd" * 80, "a")


class NothingHeldOut(CopyTask):
    def heldout_examples(self, count: int) -> list[Example]:
        return []


class SlowForSome(CopyTask):
    """Responses that begin with "a" take longer than any time limit, and are all of one kind."""

    def prepare_example(self, example: Example) -> None:
        """Nothing to read."""

    def answer_kind(self, text: str) -> str | None:
        return "a" if text.startswith("a") else None

    def reward(self, example: Example, text: str) -> float:
        if text.startswith("a"):
            time.sleep(3600)
        return super().reward(example, text)
