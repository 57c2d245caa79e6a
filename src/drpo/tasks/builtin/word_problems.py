"""Small sums told in words: somebody has some things, gets more, gives some away."""

from __future__ import annotations

import random
from collections.abc import Sequence

from drpo.errors import ConfigError
from drpo.tasks.base import Example
from drpo.tasks.builtin.word_lists import GAINS, HE, LOSSES, QUESTIONS, SHE, THINGS, TIMES
from drpo.tasks.grading.answers import extract_answer, normalize_answer
from drpo.tasks.kinds.procedural import ProceduralTask


class WordProblemsTask(ProceduralTask):
    """How many things somebody has after a few changes, asked in words. The answer is a whole number ≥ 0.

    ``Example.data`` holds what the text was made from: ``name``, ``pronoun``, ``things``, the ``start`` and the
    ``changes``, signed. The reward is 1 if the answer in the last ``<answer>…</answer>`` (or the whole response) is
    the right number, else 0.

    Args:
        min_steps, max_steps: how many changes, ≥ 1.
        largest_start: the most things to begin with, ≥ 1.
        largest_change: the most things that come or go at once, ≥ 1.

    Raises:
        ConfigError: a parameter is not a whole number in its range.
    """

    form = "small sums told in words; needs nothing installed (min_steps, max_steps, largest_start, largest_change)"

    def __init__(self, *, min_steps: int = 2, max_steps: int = 3, largest_start: int = 30, largest_change: int = 9):
        super().__init__("word_problems")
        given = {
            "min_steps": min_steps,
            "max_steps": max_steps,
            "largest_start": largest_start,
            "largest_change": largest_change,
        }
        for key, value in given.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"word_problems: {key} is a whole number ≥ 1; got {value!r}")
        if min_steps > max_steps:
            raise ConfigError(
                f"word_problems: min_steps={min_steps} exceeds max_steps={max_steps}. Lower the one or raise the other."
            )
        self.min_steps, self.max_steps = min_steps, max_steps
        self.largest_start, self.largest_change = largest_start, largest_change

    def draw(self, seed: int) -> Example:
        rng = random.Random(seed)
        pronoun, names = ("she", SHE) if rng.random() < 0.5 else ("he", HE)
        name, things = pick(names, rng), pick(THINGS, rng)
        total = start = between(1, self.largest_start, rng)
        changes: list[int] = []
        sentences = [f"{name} has {start} {things}."]
        for _ in range(between(self.min_steps, self.max_steps, rng)):
            change = self._change(total, rng)
            total += change
            changes.append(change)
            sentences.append(_told(change, pronoun, rng))
        question = pick(QUESTIONS, rng).format(name=name, pronoun=pronoun, things=things)
        data = {"name": name, "pronoun": pronoun, "things": things, "start": start, "changes": changes}
        return Example(prompt=" ".join([*sentences, question]), answer=str(total), data=data)

    def _change(self, total: int, rng: random.Random) -> int:
        if total == 0 or rng.random() < 0.5:
            return between(1, self.largest_change, rng)
        return -between(1, min(self.largest_change, total), rng)

    def reward(self, example: Example, text: str) -> float:
        """1 if the answer is the right number, else 0."""
        return float(normalize_answer(extract_answer(text)) == example.answer)


def pick(choices: Sequence[str], rng: random.Random) -> str:
    """One of ``choices``; by random(), the one method whose values Python promises to keep from version to version."""
    return choices[int(rng.random() * len(choices))]


def between(low: int, high: int, rng: random.Random) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return low + int(rng.random() * (high - low + 1))


def _told(change: int, pronoun: str, rng: random.Random) -> str:
    """One change as a sentence."""
    verb = pick(GAINS if change > 0 else LOSSES, rng)
    more = " more" if change > 0 and rng.random() < 0.5 else ""
    if rng.random() < 0.5:
        return f"{pick(TIMES, rng)} {pronoun} {verb} {abs(change)}{more}."
    return f"{pronoun.capitalize()} {verb} {abs(change)}{more}."
