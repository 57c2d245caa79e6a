"""The same held-out prompts answered by several configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drpo.comparison.result import Answer, Answered
from drpo.run_directory import RunDirectory

#: Prompts on which the rewards differ that are kept; and, with those on which they agree, at least so many.
MOST_PROMPTS, FEWEST_PROMPTS = 40, 6


def same_prompts(groups: Mapping[str, RunDirectory]) -> list[Answered]:
    """Prompts of the last evaluation that at least two of ``groups`` (label → one run of it) answered; those on which
    the rewards differ come first.

    Raises:
        DataError: a file of responses is damaged.
    """
    last = {label: _last_evaluation(run) for label, run in groups.items()}
    prompts = dict.fromkeys(key for answers in last.values() for key in answers)
    found = [
        Answered(*key, {label: answers[key] for label, answers in last.items() if key in answers}) for key in prompts
    ]
    several = [answered for answered in found if len(answered.answers) > 1]
    several.sort(key=lambda answered: (not answered.disagrees, -len(answered.answers)))
    differing = sum(answered.disagrees for answered in several)
    return several[: min(max(differing, FEWEST_PROMPTS), MOST_PROMPTS)]


def _last_evaluation(run: RunDirectory) -> dict[tuple[str, str], Answer]:
    """(prompt, expected answer) → the first response."""
    by_step = run.read_rollouts("evaluation")
    found: dict[tuple[str, str], Answer] = {}
    for record in by_step[max(by_step)] if by_step else ():
        key = (_text(record.get("prompt")), _text(record.get("answer")))
        found.setdefault(key, Answer(_text(record.get("text")), _number(record.get("reward"))))
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
