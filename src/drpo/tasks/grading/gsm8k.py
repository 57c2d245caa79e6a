"""Grade-school problems in GSM8K's layout: the answer is the number after ``####``."""

from __future__ import annotations

import re

from drpo.tasks.grading.answers import normalize_answer

#: What a prompt asks for, so that the number can be found.
INSTRUCTION = "Think step by step, and end with the answer as a number after ####."

_MARK = "####"
_NUMBER = re.compile(r"(?<![\w.)])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<=[\w.)])\d+(?:\.\d+)?")


def final_number(text: str) -> str | None:
    """The first number behind the last ``####``, without a mark the last number of all; None if there is none.

    In one form (:func:`drpo.tasks.grading.answers.normalize_answer`): "$1,000.00" is "1000". Dollar signs are ignored.
    """
    plain = text.replace("$", "").replace("\N{MINUS SIGN}", "-")
    _, mark, behind = plain.rpartition(_MARK)
    if mark:
        found = _NUMBER.search(behind)
        return normalize_answer(found[0]) if found else None
    numbers = _NUMBER.findall(plain)
    return normalize_answer(numbers[-1]) if numbers else None


def grade(response: str, answer: str) -> float:
    """1.0 if the response ends with the number of the reference ``answer`` (with or without its ``####``), else 0.0."""
    expected = final_number(answer)
    return float(expected is not None and final_number(response) == expected)
