r"""Finding the answer in a response: in its last box, or boxes, or where it says which the answer is."""

from __future__ import annotations

import re

from drpo.tasks.grading.math.text import closing_brace

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
#: What may stand between two boxes of one answer.
_LAYOUT = re.compile(r"\\(?:[,;:!> \[\]()]|quad\b|qquad\b|text(?:rm)?\b|mathrm\b|newline\b|\\)|[\s${}&~*]")
_JOINT = re.compile(
    r"(?P<before>(?:(?!and\b|or\b)[A-Za-z()]+ ){0,4})(?:,? ?(?:and|or)\b|[,;])?(?P<after>(?: ?[A-Za-z()]+){0,3}"
    r"(?: ?[A-Za-z]\w*(?:_?\w+)? ?=)?)"
)
#: Words that say that what follows replaces what stood before.
_NEW_START = (
    "no not wait actually then so but instead correction rather should hence therefore thus is are "
    "equals gives simplifies becomes answer final which i.e that means because since"
)
_GAP = 80
#: Characters from one box to the next of the same answer.
_REACH = 2000

_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
_PHRASE = re.compile(
    r"\b(?:final\s+answer|correct\s+answer|answer)\b(?:\s+to\s+[^.\n]{0,80}?)?\s*\**\s*(?:is|:|=|\bwill\s+be)\s*:?\s*",
    re.IGNORECASE,
)
_FINAL = re.compile(r"\bfinal\s+answer\s+is\s*:?\s*", re.IGNORECASE)
_END = re.compile(r"\n|\s*I hope\b|<\||\.(?=\s+[A-Z(]|\s*$)", re.IGNORECASE)


def boxed_answer(text: str) -> str | None:
    r"""What the last ``\boxed{…}`` holds, stripped; None if there is none, or if it is not closed.

    Boxes that stand side by side, or are joined by a comma, "and" or "or", are one answer: a list.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start, found = boxes[-1].start(), _content(text, boxes[-1].end())
    if found is None:
        return None
    answers = [found[0]]
    for box in reversed(boxes[:-1]):
        if start - box.end() > _REACH:
            break
        before = _content(text[:start], box.end())
        if before is None:
            continue  # it holds the one behind it
        if not _joined(text[before[1] : start]):
            break
        answers.insert(0, before[0])
        start = box.start()
    return ", ".join(dict.fromkeys(answers))


def stated_answer(text: str) -> str | None:
    """What a text says is the answer: in its boxes, in ``<answer>…</answer>``, behind ``####``, or behind "the answer
    is"; None if it does not say. Behind the last box, "the final answer is" counts before the box."""
    boxed = boxed_answer(text)
    if boxed is not None:
        later = _stated(text[max(text.rfind("\\boxed"), text.rfind("\\fbox")) :], _FINAL)
        return boxed if later is None else later
    tags = _TAG.findall(text)
    if tags:
        return tags[-1].strip()
    _, mark, behind = text.rpartition("####")
    if mark and behind.strip():
        return behind.strip().splitlines()[0].strip()
    return _stated(text, _PHRASE)


def _stated(text: str, phrase: re.Pattern[str]) -> str | None:
    """What stands behind the last such phrase, up to the end of its sentence."""
    phrases = list(phrase.finditer(text))
    if not phrases:
        return None
    behind = text[phrases[-1].end() :].lstrip(" *\n")
    end = _END.search(behind)
    return (behind[: end.start()] if end else behind).strip() or None


def _content(text: str, start: int) -> tuple[str, int] | None:
    """What the braces at ``start`` hold, and where they end."""
    end = closing_brace(text, start) if text[start : start + 1] == "{" else -1
    return None if end < 0 else (text[start + 1 : end].strip(), end + 1)


def _joined(between: str) -> bool:
    """Whether what stands between two boxes joins them."""
    if len(between) > _GAP:
        return False
    plain = " ".join(_LAYOUT.sub(" ", between).split())
    if not re.search(r"[\w=<>≈→]", plain):
        return "\n\n" not in between
    match = _JOINT.fullmatch(plain + " ") or _JOINT.fullmatch(plain)
    words = {word.strip("()").lower() for word in re.findall(r"[A-Za-z().]+", plain)}
    return match is not None and bool(re.search(r"\b(?:and|or)\b|[,;]", plain)) and not words & set(_NEW_START.split())
