"""The demo's base: sums of two or three small numbers, calculated term by term."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drpo.tasks import make_task
from tools.warm_start.spec import WarmStart


@dataclass(frozen=True, kw_only=True)
class Arithmetic(WarmStart):
    """The defaults make the one that ships."""

    task: str = "reasoning_gym:chain_sum"
    task_parameters: dict[str, Any] = field(
        default_factory=lambda: {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
    )
    wrong_share: float = 0.65
    shape: dict[str, Any] = field(default_factory=lambda: {"intermediate_size": 384})
    vocabulary: int = 384
    steps: int = 1400
    batch: int = 128

    def texts(self) -> Iterator[tuple[str, str]]:
        """Problems of the training side with noisy solutions."""
        rng = random.Random(self.seed)
        task = make_task(self.task, **self.task_parameters)
        for index in itertools.count():
            example = task.training_example(self.seed + 10_000, index)
            yield example.prompt + "\n", noisy_solution(example.data["metadata"]["expression"], self.wrong_share, rng)

    def corpus(self, texts: Iterator[tuple[str, str]]) -> Iterator[str]:
        """The first 5,000 problems and solutions."""
        return (given + learned for given, learned in itertools.islice(texts, 5000))


def noisy_solution(expression: str, wrong_share: float, rng: random.Random) -> str:
    """The terms of ``expression`` (integers joined by + and −) added one by one, then the answer in its tag.

    With probability ``wrong_share`` one intermediate result is wrong, and the rest follows from it.
    """
    first, *rest = expression.split()
    operations = list(zip(rest[::2], rest[1::2], strict=True))
    wrong_at = rng.randrange(len(operations)) if rng.random() < wrong_share else None
    value, lines = int(first), []
    for index, (sign, term) in enumerate(operations):
        result = value + int(term) if sign == "+" else value - int(term)
        if index == wrong_at:
            result += rng.choice([-10, -2, -1, 1, 2, 10])
        lines.append(f"{value} {sign} {term} = {result}")
        value = result
    return "\n".join(lines) + f"\n<answer>{value}</answer>"
