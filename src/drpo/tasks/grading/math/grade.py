"""Is a response's answer the right one? With math-verify, in a process that may be killed at any time.

Wrong and unknown are different things. A response without an answer, or with one that cannot be read as mathematics, is
wrong. An answer that takes more memory, stack or characters than it may is a failure: it is raised.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re

from drpo.errors import ConfigError, DataError, TaskError
from drpo.installation import install
from drpo.tasks.grading.math.answers import decide, form, is_readable, same_answer
from drpo.tasks.grading.math.extraction import boxed_answer, stated_answer
from drpo.tasks.grading.math.oracle import closed_form, equal
from drpo.tasks.grading.math.text import latex_form

#: Characters of an answer that are looked at; the longest answers of DAPO-Math, MATH-500 and GSM8K have dozens.
ANSWER_LIMIT = 2000
#: A line of up to so many characters may be an answer as a whole.
_SHORT = 80
_GIB = 2**30
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
_SPACE = re.compile(r"\s+")


def require_math_verify() -> None:
    """Raises ConfigError where math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError(
            "task 'math' grades with the math-verify library, which is not installed. Install it: " + install("math")
        )


def prepare(memory_gib: float) -> None:
    """Bound this process's memory, and load math-verify and see it work, so that no response waits or pays for it.

    Raises:
        TaskError: math-verify does not find 1/2 equal to 0.5.
    """
    if os.name == "posix":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(memory_gib * _GIB), most))
    # It warns that its own time limit is off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    if not equal(r"\frac{1}{2}", "0.5"):
        raise TaskError(
            "math-verify does not find 1/2 equal to 0.5, so that no answer could be graded. Install an "
            "ANTLR runtime that it knows: pip install antlr4-python3-runtime==4.13.2 (beside Hydra 4.9.3)"
        )


def read_right_answer(right: str) -> None:
    """Read a right answer as :func:`grade` does, and keep what takes time for the next response to the same problem.

    Raises:
        MemoryError, RecursionError: there was not enough memory or stack to read it.
    """
    expected = form(stated_answer(right) or right)
    if not is_readable(expected):
        closed_form(expected.latex)


def answer_kind(text: str) -> str | None:
    """The answer of a response with its numbers as 0: what ``9^{9^{9^9}} - 1`` and ``7^{8^{9^9}} - 2`` have in common.
    None for an answer that is read without being computed, which cannot take long."""
    answer = stated_answer(text[-2 * ANSWER_LIMIT :])
    if answer is None:
        answer = text[-_SHORT:]
    answer = answer[:ANSWER_LIMIT]
    return None if is_readable(form(answer)) else _SPACE.sub("", _DIGITS.sub("0", answer))


def grade(text: str, right: str, require_box: bool) -> bool:
    """Whether a response's answer equals the ``right`` one (:mod:`drpo.tasks.grading.math.answers`).

    Args:
        text: the response.
        right: the answer alone, in LaTeX or plain; of a whole solution, its box or final statement counts.
        require_box: without a closed box the response is wrong; if False, what stands in ``<answer>…</answer>``, behind
            ``####`` or behind "the answer is" counts, and else what math-verify finds in the last ``ANSWER_LIMIT``
            characters.

    Raises:
        DataError: the right answer cannot be read, or the response's is longer than ``ANSWER_LIMIT`` characters.
        MemoryError, RecursionError: there was not enough memory or stack to tell.
    """
    expected = stated_answer(right) or right
    if not latex_form(expected):
        raise DataError(f"math-verify cannot read the right answer {right[:100]!r}. Correct it, or remove the problem")
    answer = boxed_answer(text)
    if answer is not None and not require_box:
        answer = stated_answer(text)
    if answer is not None:
        if len(answer) > ANSWER_LIMIT:
            raise DataError(f"the answer has {len(answer):,} characters; at most {ANSWER_LIMIT:,} are graded")
        return bool(answer) and same_answer(expected, answer)
    return not require_box and _grade_text(text[-ANSWER_LIMIT:], expected)


def _grade_text(text: str, right: str) -> bool:
    """Whether the right answer stands in a text without a box."""
    answer = stated_answer(text) or (text if len(text) <= _SHORT and "\n" not in text.strip() else None)
    if answer is not None:
        verdict = decide(form(right), form(answer))
        if verdict or (verdict is False and is_readable(form(answer))):
            return verdict
    return any(equal(text, form, alone=False) for form in {latex_form(right), right})
