"""Sums of two numbers, asked as in a chat: what a small pretrained chat model half knows."""

from __future__ import annotations

from drpo.errors import ConfigError
from drpo.tasks.base import Example
from drpo.tasks.grading.gsm8k import final_number
from drpo.tasks.kinds.finite import FiniteTask, check_fraction
from drpo.tasks.split import heldout_prompts


class SumsTask(FiniteTask):
    """ "What is a + b?" for every a and b from 1 to ``largest``. The answer is a whole number.

    The prompts with the smallest hashes are held out. The reward is 1 if the last number of the response is the sum
    (:func:`drpo.tasks.grading.gsm8k.final_number`), else 0: "3 + 4 = 7" and "The answer is 7." are right.

    Args:
        largest: the largest summand, ≥ 2.
        heldout_fraction: of the ``largest``² prompts, in (0, 1).

    Raises:
        ConfigError: a parameter is not allowed.
    """

    form = "sums of two numbers, asked as in a chat; needs nothing installed (largest, heldout_fraction)"

    def __init__(self, *, largest: int = 20, heldout_fraction: float = 0.16):
        if not isinstance(largest, int) or isinstance(largest, bool) or largest < 2:
            raise ConfigError(f"sums: largest is the largest summand, a whole number ≥ 2; got {largest!r}")
        self.largest, self.heldout_fraction = largest, check_fraction("sums", heldout_fraction)
        self.load()

    def read(self) -> tuple[list[Example], list[Example]]:
        """Both sides, the held-out one by rising hash."""
        numbers = range(1, self.largest + 1)
        sums = {f"What is {a} + {b}?": a + b for a in numbers for b in numbers}
        heldout = heldout_prompts(sums, self.heldout_fraction)
        training = sums.keys() - set(heldout)
        return [_example(p, sums) for p in sums if p in training], [_example(p, sums) for p in heldout]

    def reward(self, example: Example, text: str) -> float:
        """1.0 if the response ends with the sum, else 0.0."""
        return float(final_number(text) == example.answer)


def _example(prompt: str, sums: dict[str, int]) -> Example:
    return Example(prompt=prompt, answer=str(sums[prompt]))
