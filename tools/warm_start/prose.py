"""What the word-problem bases learn from: worked solutions in words, some of them wrong, and a little literature."""

from __future__ import annotations

import importlib.resources
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tools.warm_start.wording import (
    ADJECTIVES,
    ADVERBS,
    CLOSERS,
    CONNECTIVES,
    DOUBTS,
    GAINED,
    LEAVES,
    LOST,
    MAKES,
    OPENERS,
    usual,
)

#: What a wrong result is wrong by.
SLIPS = (-10, -2, -1, 1, 2, 10)


def brief_solution(data: Mapping[str, Any], wrong_share: float, rng: random.Random) -> str:
    """The changes of a word problem one by one, a short sentence each, then the answer in its tag.

    With probability ``wrong_share`` one of the results is wrong, and the rest follows from it.
    """
    told, total = _steps(data, wrong_share, rng, terse=0.4)
    opening = [f"{usual(OPENERS, rng)}:"] if rng.random() < 0.3 else []
    return " ".join([*opening, *told, _closing(total, rng)])


def worked_solution(data: Mapping[str, Any], wrong_share: float, rng: random.Random) -> str:
    """As :func:`brief_solution`, at length: it says what is there at first, and doubts some results.

    A doubt works the sum out again, and finds a slip in half of the cases where there is one.
    """
    told, total = _steps(data, wrong_share, rng, doubting=0.35)
    opening = f"{usual(OPENERS, rng)}: {data['name']} {usual(ADVERBS, rng)} starts with"
    return " ".join([opening, f"{data['start']} {_some(data, rng)}.", *told, _closing(total, rng)])


def _steps(
    data: Mapping[str, Any], wrong_share: float, rng: random.Random, terse: float = 0.0, doubting: float = 0.0
) -> tuple[list[str], int]:
    """A sentence for every change, ``terse`` of them but the sum; one more where it is doubted; and the result."""
    wrong_at = int(rng.random() * len(data["changes"])) if rng.random() < wrong_share else None
    total, told = data["start"], []
    for index, change in enumerate(data["changes"]):
        right = total + change
        result = right
        if index == wrong_at:
            result = max(0, right + SLIPS[int(rng.random() * len(SLIPS))])
        if rng.random() < terse:
            told.append(f"{usual(CONNECTIVES, rng)} {_sum(total, change, result, rng)}.")
        else:
            told.append(_step(data, total, change, result, rng))
        if rng.random() < doubting:
            if rng.random() < 0.5:
                result = right
            told.append(f"{usual(DOUBTS, rng)}: {_sum(total, change, result, rng)}.")
        total = result
    return told, total


def _step(data: Mapping[str, Any], total: int, change: int, result: int, rng: random.Random) -> str:
    verb = usual(GAINED if change > 0 else LOST, rng)
    how = f"{usual(ADVERBS, rng)} " if rng.random() < 0.6 else ""
    what = f" {_some(data, rng)}" if rng.random() < 0.35 else ""
    subject = data["name"] if rng.random() < 0.3 else data["pronoun"]
    told = f"{subject} {how}{verb} {abs(change)}{what}"
    told = f"{usual(CONNECTIVES, rng)} {told}" if rng.random() < 0.6 else told[0].upper() + told[1:]
    return f"{told}, {_sum(total, change, result, rng)}."


def _sum(total: int, change: int, result: int, rng: random.Random) -> str:
    sign, equals = ("plus", MAKES) if change > 0 else ("minus", LEAVES)
    return f"{total} {sign} {abs(change)} {usual(equals, rng)} {result}"


def _some(data: Mapping[str, Any], rng: random.Random) -> str:
    return f"{usual(ADJECTIVES, rng)} {data['things']}" if rng.random() < 0.8 else data["things"]


def _closing(total: int, rng: random.Random) -> str:
    return f"{usual(CLOSERS, rng)}: <answer>{total}</answer>"


def literature() -> str:
    """ "In the Year 2889" by Jules and Michel Verne, in the public domain, which comes with reasoning-gym."""
    text = (importlib.resources.files("reasoning_gym") / "data" / "in_the_year_2889.txt").read_text(encoding="utf-8")
    _, _, story = text.partition("*** START OF THE PROJECT GUTENBERG EBOOK IN THE YEAR 2889 ***")
    story, _, _ = story.partition("*** END OF THE PROJECT GUTENBERG EBOOK IN THE YEAR 2889 ***")
    return " ".join(story.split())


def passages(text: str, words: int, rng: random.Random) -> Iterator[str]:
    """Endless passages of ``words`` words, each from where a sentence begins."""
    every = text.split()
    starts = [place for place, word in enumerate(every[:-words], 1) if re.search(r"[.!?]$", word)]
    while True:
        start = starts[int(rng.random() * len(starts))]
        yield " ".join(every[start : start + words])
