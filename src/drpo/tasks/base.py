"""What a task is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Example:
    """One problem. ``data`` is whatever its task needs to grade it (picklable).

    ``chat`` says how a model gets the prompt: as a user's turn in the tokenizer's chat template, where it has one; or,
    if False, as plain text to be continued. ``turns`` is the conversation ({role, content}, the last one the user's)
    where the prompt is more than one user's turn; ``prompt`` is then its text, for a tokenizer without a template.
    """

    prompt: str
    answer: str
    data: Mapping[str, Any] = field(default_factory=dict)
    chat: bool = True
    turns: Sequence[Mapping[str, str]] = ()

    @classmethod
    def with_answers(cls, prompt: str, answers: Sequence[str], **others: Any) -> Example:
        """An example with several answers, any of which is right; ``answer`` is the first of them."""
        data = dict(others.pop("data", {}))
        return cls(prompt, answers[0], data | ({"answers": list(answers)} if len(answers) > 1 else {}), **others)

    @property
    def answers(self) -> Sequence[str]:
        """All answers that are right."""
        return self.data.get("answers", (self.answer,))


class Task(Protocol):
    """Problems and their grading. A task is picklable: grading runs in processes of its own.

    The two sides never share a prompt: whatever seed and index, no training example is a held-out one.
    """

    def training_example(self, seed: int, index: int) -> Example:
        """Training example ``index`` of the stream that ``seed`` names; any index ≥ 0, in any order."""
        ...

    def heldout_examples(self, count: int) -> list[Example]:
        """The first ``count`` held-out examples (fewer if there are not that many), always the same."""
        ...

    def reward(self, example: Example, text: str) -> float:
        """The reward of a response, in [0, 1]; 1 is right."""
        ...
