"""Is a response's answer the right one? With math-verify, in a process that may be killed at any time.

Wrong and unknown are different things. A response without an answer, or with one that cannot be read as mathematics, is
wrong. An answer that takes more memory, stack or characters than it may is a failure: it is raised.
"""

from __future__ import annotations

import importlib.util
import logging
import os

from drpo.errors import ConfigError, DataError, TaskError
from drpo.tasks.exhaustion import watch_exhaustion

#: Characters of an answer that are looked at; the longest answers of DAPO-Math, MATH-500 and GSM8K have dozens.
ANSWER_LIMIT = 2000
_GIB = 2**30
_BOX = "\\boxed"


def require_math_verify() -> None:
    """Raises ConfigError where math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError("task 'math' grades with the math-verify library, which is not installed. Install it: "
                          "pip install 'drpo[math]'")


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
        raise TaskError("math-verify does not find 1/2 equal to 0.5, so that no answer could be graded. Install an "
                        "ANTLR runtime that it knows: pip install antlr4-python3-runtime==4.13.2 (beside Hydra 4.9.3)")


def boxed_answer(text: str) -> str | None:
    r"""What the last ``\boxed{…}`` holds, stripped; None if there is none, or if it is not closed."""
    start = text.rfind(_BOX)
    if start < 0:
        return None
    inside = text[start + len(_BOX):].lstrip()
    if not inside.startswith("{"):
        return None
    depth, escaped = 0, False
    for place, character in enumerate(inside):
        if escaped or character == "\\":
            escaped = not escaped
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return inside[1:place].strip()
    return None


def grade(text: str, right: str, require_box: bool) -> bool:
    """Whether a response's answer equals the ``right`` one.

    Args:
        text: the response.
        right: the answer alone, in LaTeX or plain.
        require_box: without a closed box the response is wrong; if False, math-verify looks for an answer in the last
            ``ANSWER_LIMIT`` characters ("the answer is …", or the last expression).

    Raises:
        DataError: the right answer cannot be read, or the response's is longer than ``ANSWER_LIMIT`` characters.
        MemoryError, RecursionError: there was not enough memory or stack to tell.
    """
    answer = boxed_answer(text)
    if answer is None:
        return not require_box and equal(text[-ANSWER_LIMIT:], right, boxed=False)
    if len(answer) > ANSWER_LIMIT:
        raise DataError(f"the answer has {len(answer):,} characters; at most {ANSWER_LIMIT:,} are graded")
    return bool(answer) and (answer == right or equal(answer, right))


def equal(answer: str, right: str, boxed: bool = True) -> bool:
    """Whether math-verify finds the two equal.

    Args:
        answer: what stood in a box; or, with ``boxed=False``, the text to look for an answer in.
        right: the right answer.

    Raises:
        DataError, MemoryError, RecursionError: as :func:`grade`.
    """
    import math_verify

    latex = math_verify.LatexExtractionConfig(boxed_match_priority=0)
    # A timeout of 0 means none: this process is killed from outside. The library's own is an alarm signal, which C code
    # does not hear, and which it answers with "different".
    expected = math_verify.parse(f"\\boxed{{{right}}}", [latex], extraction_mode="first_match", parsing_timeout=0)
    if not expected:
        raise DataError(f"math-verify cannot read the right answer {right[:100]!r}. Correct it, or remove the problem")
    # math-verify and sympy catch every exception and call the answers different.
    with watch_exhaustion() as exhausted:
        if boxed:
            found = math_verify.parse(f"\\boxed{{{answer}}}", [latex], extraction_mode="first_match",
                                      parsing_timeout=0)
        else:
            found = math_verify.parse(answer, [latex, math_verify.ExprExtractionConfig()], parsing_timeout=0)
        same = math_verify.verify(expected, found, timeout_seconds=0)
    if exhausted and not same:
        kind, what = (MemoryError, "memory") if MemoryError.__name__ in exhausted else (RecursionError, "stack")
        raise kind(f"math-verify ran out of {what} on the answer {answer[:100]!r}")
    return same
