"""1 for the right answer, else 0; named by reward.custom_reward_function."""

from __future__ import annotations

from typing import Any

from drpo.tasks.grading.answers import extract_answer, normalize_answer


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> float:
    """verl's signature of a reward function."""
    return float(normalize_answer(extract_answer(solution_str)) == normalize_answer(ground_truth))
