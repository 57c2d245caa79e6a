"""Whether rollout batches hold anything to learn from, said once where they do not.

An advantage is a difference within a group: where no group's rewards vary, every advantage is 0, and training goes on
without changing anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: Rollout batches in a row that must lack a signal before it is said; the first may be chance.
BATCHES = 2


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """What is known of a rollout batch; None where the host does not say.

    ``varies``: some advantage is not 0. ``cut_off``: all responses ended at the length limit. ``failed``: no reward
    could be computed. ``reward``: their mean.
    """

    varies: bool | None = None
    cut_off: bool | None = None
    failed: bool | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Hints:
    """What to try, in the names of the host: its length limit, where responses can be read, how rewards are made."""

    length: str = "Raise the limit of the response length."
    responses: str = "Read some responses"
    rewards: str = "See what the reward function returns or raises."


@dataclass(slots=True)
class LearningSignal:
    """Counts rollout batches without a signal; each kind is told once."""

    hints: Hints = field(default_factory=Hints)
    _in_a_row: dict[str, int] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def add(self, facts: RolloutFacts) -> list[str]:
        """The warnings that are due after this batch, one sentence each with what to try."""
        lacking = {
            "failed": facts.failed is True,
            "cut_off": facts.cut_off is True,
            "constant": facts.varies is False and facts.failed is not True,
        }
        due = []
        for kind, lacks in lacking.items():
            self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1 if lacks else 0
            if self._in_a_row[kind] >= BATCHES and kind not in self._told:
                self._told.add(kind)
                due.append(self._say(kind, facts.reward))
        return due

    def _say(self, kind: str, reward: float | None) -> str:
        start = f"{BATCHES} rollout batches in a row:"
        if kind == "failed":
            return f"{start} every reward failed, and there is nothing to learn from. {self.hints.rewards}"
        if kind == "cut_off":
            return (
                f"{start} every response was cut off at the length limit, so that an answer at its end is missing. "
                f"{self.hints.length}"
            )
        known = reward is not None and math.isfinite(reward)
        found = f" (mean {reward:.3g})" if known else ""
        return (
            f"{start} no group's rewards vary{found}, so that every advantage is 0 and there is nothing to learn "
            f"from. {self.hints.responses}: if they are all wrong, take easier problems, a better model or a "
            "higher temperature, and check how answers are graded; if they are all right, take harder problems. "
            "More responses a prompt vary more."
        )
