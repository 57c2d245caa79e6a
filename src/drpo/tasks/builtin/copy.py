"""The task that needs nothing installed."""

from __future__ import annotations

import random

from drpo.errors import ConfigError
from drpo.tasks.base import Example
from drpo.tasks.kinds.procedural import ProceduralTask


class CopyTask(ProceduralTask):
    """Repeat the prompt: a few letters, drawn uniformly from a small alphabet.

    A tiny model learns it within seconds, and partial credit makes its first steps count.

    Args:
        length: letters in a prompt, ≥ 1.
        alphabet: the letters, at least two, each once, none of them white space.
    """

    form = "repeat a few letters; needs nothing installed (length, alphabet)"

    def __init__(self, *, length: int = 3, alphabet: str = "abcd"):
        super().__init__("copy")
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            raise ConfigError(f"copy: length is the number of letters, a whole number ≥ 1; got {length!r}")
        if not isinstance(alphabet, str) or len(alphabet) < 2 or len(set(alphabet)) < len(alphabet):
            raise ConfigError(f"copy: alphabet is two or more different letters, each once; got {alphabet!r}")
        if any(letter.isspace() for letter in alphabet):
            raise ConfigError(f"copy: grading strips white space, so alphabet has none; got {alphabet!r}")
        self.length = length
        self.alphabet = alphabet

    def draw(self, seed: int) -> Example:
        rng = random.Random(seed)
        # random() is the one method whose values Python promises to keep from version to version.
        letters = "".join(self.alphabet[int(rng.random() * len(self.alphabet))] for _ in range(self.length))
        return Example(prompt=letters, answer=letters)

    def reward(self, example: Example, text: str) -> float:
        """The share of places where the stripped response has the right letter; extra ones count as wrong."""
        response = text.strip()
        right = sum(got == wanted for got, wanted in zip(response, example.answer, strict=False))
        return right / max(len(response), len(example.answer))
