"""Lists, sets, tuples and intervals as their elements."""

from __future__ import annotations

import re
from typing import NamedTuple

_OPENING = {"(": ")", "[": "]", r"\{": r"\}"}
_MEMBER = re.compile(r"^\\?[A-Za-z]\w*\s*\\in(?![A-Za-z])\s*")
_WORDS = re.compile(r"\s*,?\s+(?:and|or)\s+|\s*;\s*|(?<=[\d)])(?:and|or)(?=[A-Za-z(-])", re.IGNORECASE)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+")
_MATRIX = re.compile(
    r"(?:\\left)?[(\[]?\s*\\begin\{([pb]matrix|matrix|array)\}(?:\{[clr| ]*\})?(.*)\\end\{\1\}\s*(?:\\right)?[)\]]?"
)
_NAME = re.compile(r"(?:\\?[A-Za-z∠△|(][^+*/<>^%=]*|\\(?:angle|triangle|overline|vec)[^+*/<>^%=]*)")


class Structure(NamedTuple):
    r"""Elements in brackets: "(", "[" or "\{", none for a bare list; ``names`` of elements such as ``x = 1``."""

    opening: str
    closing: str
    items: list[str]
    names: list[str | None]

    @property
    def ordered(self) -> bool:
        """Whether the order of the elements counts."""
        return self.opening in ("(", "[")


def read_structure(text: str, split_thousands: bool = False) -> Structure | None:
    """The elements of a plain form; None if it is a single thing (a number, a formula, a matrix)."""
    if r"\begin" in text or ("|" in text and r"\{" in text):  # a matrix; a set given by a condition
        return None
    text = _MEMBER.sub("", text)
    name, rest = without_name(text)
    if name is not None and rest.startswith(("(", "[", r"\{")) and _end_of_brackets(rest) == len(rest):
        text = rest
    opening = next((mark for mark in _OPENING if text.startswith(mark)), "")
    if opening and _end_of_brackets(text) == len(text):
        closing = r"\}" if text.endswith(r"\}") else text[-1]
        inside = text[len(opening) : -len(closing)]
        spaced = ", " in inside or ";" in inside
        items = _elements(inside, thousands=spaced and not split_thousands)
        if len(items) > 1 or opening == r"\{":
            return _with_names(opening, closing, items)
        return read_structure(inside.strip()) if opening == "(" and closing == ")" else None
    items = _elements(text, thousands=not split_thousands)
    return _with_names("", "", items) if len(items) > 1 or r"\pm" in text else None


def matrix_rows(latex: str) -> list[list[str]] | None:
    """The entries of a matrix, row by row; None if it is none."""
    match = _MATRIX.fullmatch(latex)
    if match is None:
        return None
    rows = [row.strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[2])]
    return [[entry.strip() for entry in row.split("&")] for row in rows if row]


def union_parts(text: str) -> list[str]:
    r"""The parts of a union; one part where there is no ``\cup``."""
    return _split(_MEMBER.sub("", text), re.compile(r"\s*\\cup(?![A-Za-z])\s*"))


def without_name(text: str) -> tuple[str | None, str]:
    """``x = 5`` as ("x", "5"), and ``5 + 6 = 11`` as (None, "11"); what is no assignment as it is."""
    parts = _split(text, re.compile(r"(?<![<>!\\=])\s*=\s*(?!=)"))
    if len(parts) < 2 or not parts[-1]:
        return None, text
    first = parts[0].strip()
    if _NAME.fullmatch(first):
        return " ".join(first.split()), parts[-1]
    return (None, text) if re.search("[A-Za-z]", re.sub(r"\\[a-z]+", "", first)) else (None, parts[-1])


def is_grouped_number(text: str) -> bool:
    """Whether it is a number such as 100,200, which may as well be a list of two."""
    return _THOUSANDS.fullmatch(text) is not None


def _with_names(opening: str, closing: str, items: list[str]) -> Structure:
    names, values = [], []
    for item in items:
        name, value = without_name(item)
        for sign in ("+", "-") if r"\pm" in value or r"\mp" in value else ("",):
            other = "-" if sign == "+" else "+"
            signed = value.replace(r"\pm", sign).replace(r"\mp", other) if sign else value
            values.append(re.sub(r"^\+\s*", "", signed.strip()))
            names.append(name)
    return Structure(opening, closing, values, names)


def _elements(text: str, thousands: bool) -> list[str]:
    parts = _split(text, re.compile(r"\s*;\s*"))
    if len(parts) > 1:
        return [part for part in parts if part]
    pieces = [piece for part in _split(text, _WORDS) for piece in _split_commas(part, thousands)]
    return [piece for piece in pieces if piece]


def _split_commas(text: str, thousands: bool) -> list[str]:
    comma = re.compile(r"(?<!\d),|(?<=(?<![\d.])0),|,(?!\d{3}(?!\d))") if thousands else re.compile(",")
    return _split(text, comma)


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts of ``text`` between separators that stand in no brackets."""
    parts, depth, start, place = [], 0, 0, 0
    while place < len(text):
        if text[place] in "([{":
            depth += 1
        elif text[place] in ")]}":
            depth -= 1
        elif depth == 0 and (match := separator.match(text, place)) and match.end() > place:
            parts.append(text[start:place].strip())
            start = place = match.end()
            continue
        place += 1
    return [*parts, text[start:].strip()]


def _end_of_brackets(text: str) -> int:
    """Where the bracket that opens the text is closed, by one of any kind: intervals are half open; -1 if nowhere."""
    depth = 0
    for place, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                return place + 1
    return -1
