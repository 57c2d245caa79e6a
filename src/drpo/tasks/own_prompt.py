"""A prompt that somebody types, as a task would ask it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drpo.tasks.base import Example
from drpo.tasks.kinds.math import INSTRUCTION, PROMPT_STYLES


def typed_example(name: str, parameters: Mapping[str, Any], prompt: str, answer: str | None) -> Example:
    """The problem ``prompt`` with its ``answer`` (None: not known), formatted as training formats the task's problems.

    No file of the task is read.

    Args:
        name: of the task.
        parameters: the task's own.
        prompt: as typed.
        answer: what the task's reward compares with.
    """
    if name == "math":
        form, chat = PROMPT_STYLES[parameters.get("prompt_style", "instruct")]
        return Example(form.format(problem=prompt, instruction=INSTRUCTION), answer or "", {"problem": prompt}, chat)
    if name.startswith("reasoning_gym:"):  # which grades with the rest of its entry
        return Example(prompt, answer or "", {"answer": answer, "metadata": {}})
    return Example(prompt, answer or "")
