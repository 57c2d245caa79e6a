"""math-verify as verl's reward: ``reward.custom_reward_function.path=pkg://drpo.integrations.verl_math``.

verl's own function answers every failure with 0: a missing package, and 30 seconds that its processes need to start on
a busy machine. So it is given time, and has to grade a known answer before it grades any other.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import math_verify  # noqa: F401 - missing, it is an error here and not a reward of 0
from verl.utils.reward_score import math_verify as grader

#: Seconds for one response, and for the first one, which starts the processes.
TIME_LIMIT, START_LIMIT = 120.0, 600.0


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> float:
    """1.0 if math-verify finds ``ground_truth`` in the response, cut off or not; else 0.0."""
    return float(grader.compute_score(solution_str, str(ground_truth), timeout=TIME_LIMIT))


# The grader's own processes import their parent's main module, and this one with it.
is_main = multiprocessing.current_process().name == "MainProcess"
if is_main and grader.compute_score(r"\boxed{\frac{1}{2}}", "0.5", timeout=START_LIMIT) != 1.0:
    raise RuntimeError(
        "math-verify does not find 1/2 equal to 0.5, so that every reward would be 0. Its log says why; "
        "with Hydra it needs antlr 4.9: pip install 'math-verify[antlr4_9_3]'"
    )
