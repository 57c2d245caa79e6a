"""What a comparison of runs holds, as plain data: for the page, the terminal, JSON and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: What is compared: key → title.
FIGURES = {"accuracy": "final held-out accuracy", "reward": "training reward, second half of the steps"}


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in a line. Accuracies are shares; ``reward`` is the mean over the second half of the steps."""

    run: str
    group: str
    objective: str
    seed: int | None
    status: str
    steps: int
    updates: int
    accuracy_before: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    best_accuracy: float | None
    best_step: int | None
    reward: float | None
    tokens: int
    seconds: float
    outcome: str


@dataclass(frozen=True, slots=True)
class GroupCurve:
    """A figure of a group over steps: mean over its runs, lowest and highest, where at least one has a value."""

    figure: str
    title: str
    group: str
    points: Sequence[tuple[int, float, float, float]]


@dataclass(frozen=True, slots=True)
class RunDifference:
    """``ours`` − ``theirs`` of a figure, and how its interval was made. ``low`` and ``high`` are None without one."""

    figure: str
    ours: str
    theirs: str
    value: float
    low: float | None
    high: float | None
    basis: str

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """A group's last response to a prompt; ``reward`` None where grading failed."""

    text: str
    reward: float | None


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt, the answer that was expected, and group → what it answered."""

    prompt: str
    expected: str
    answers: Mapping[str, Answer]

    @property
    def disagrees(self) -> bool:
        """Whether the groups got different rewards."""
        return len({answer.reward for answer in self.answers.values()}) > 1


@dataclass(frozen=True, slots=True)
class RunComparison:
    """What `drpo compare` shows.

    Args:
        sentence: which configuration ended highest, and whether that is more than noise.
        remarks: what makes the runs hard to compare.
        groups: label → objective.
        settings: dotted key → the value of each group, in their order; only keys that differ.
        rows: a run each.
        differences: every group against the first.
        curves: by figure, then by group.
        answered: prompts that more than one group answered, with the responses.
    """

    sentence: str
    remarks: list[str]
    groups: dict[str, str]
    settings: dict[str, list[Any]]
    rows: list[RunRow]
    differences: list[RunDifference]
    curves: list[GroupCurve]
    answered: list[Answered]
