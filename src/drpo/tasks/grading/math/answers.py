"""Whether an answer says the same as the right one: units, percent, lists and decimals first, formulas by math-verify.

docs/tasks.md states the rules. Every function returns None where it cannot tell.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from drpo.tasks.grading.math import oracle as math_oracle
from drpo.tasks.grading.math.numbers import Beyond, Number, Reading, read_number, same_number
from drpo.tasks.grading.math.structure import (
    Structure,
    is_grouped_number,
    matrix_rows,
    read_structure,
    union_parts,
    without_name,
)
from drpo.tasks.grading.math.text import latex_form, plain_form
from drpo.tasks.grading.math.units import Quantity, fit, is_compound, read_quantity

_LETTER = re.compile(r"(?:(?:option|choice|answer)\s+)?\(?([A-Z])\)?[.):]?", re.IGNORECASE)
_LABELED = re.compile(r"\(?([A-J])(?:\)|[.:](?=\s))\s*(?!and\b|or\b|,)(\S.*)")
_RATIO = re.compile(r"([\d.,/]+)\s*(?::|\bto\b|\\colon)\s*([\d.,/]+)(?:\s*(?::|\bto\b)\s*([\d.,/]+))?")
_TIME = re.compile(r"(\d{1,2}):(\d\d)\s*(?:([ap])\.?\s?m\.?)?|(\d{1,2})\s*([ap])\.?\s?m\.?", re.IGNORECASE)
_TEXT = re.compile(r"[^\W\d_](?:[^\W\d_]|[ '’.&-])*")
_SAME_TEXT = {
    "no solutions": "no solution",
    "there is no solution": "no solution",
    "there are no solutions": "no solution",
    "empty set": "no solution",
    "dne": "does not exist",
    "do not exist": "does not exist",
    "infinitely many solutions": "infinitely many",
    "none of these": "none of the above",
    "all reals": "all real numbers",
}
_SYMBOLS = {
    r"\emptyset": "no solution",
    r"\infty": "infinity",
    r"\mathbb{R}": "all real numbers",
    r"(-\infty,\infty)": "all real numbers",
    r"(-\infty,+\infty)": "all real numbers",
}
_CONDITION = re.compile(r"\\\{\s*([a-zA-Z])\s*(?:\||\\mid|:)\s*(.*)\\\}")
_MODULUS = re.compile(r"\s*\\pmod\s*\{?\s*(\w+)\s*\}?\s*$|\s*\(\s*mod\s+(\w+)\s*\)\s*$")
_NUMERAL = re.compile(r"([\dA-Fa-f]+)(?:\s*_\s*\{?\s*(\d+)\s*\}?)?")
_DECIMAL_COMMA = re.compile(r"-?(?:0,\d{2,}|\d+,(?:\d\d|\d{4,}))")
_NEARLY = Fraction(1, 10**30)


class Form(NamedTuple):
    """An answer in LaTeX, and without layout."""

    latex: str
    plain: str


def form(text: str) -> Form:
    """Both forms of an answer."""
    latex = latex_form(text)
    return Form(latex, plain_form(latex))


def same_answer(right: str, answer: str) -> bool:
    """Whether the two answers are equal.

    Raises:
        DataError, MemoryError, RecursionError: as :func:`drpo.tasks.grading.math.oracle.equal`.
    """
    return _same(form(right), form(answer))


def decide(right: Form, answer: Form) -> bool | None:
    """Whether the two are equal by the rules that need no formula to be compared; None if they do not tell."""
    if not right.plain or not answer.plain:
        return False
    if right.plain == answer.plain:
        return True
    rules = (
        _matrices,
        _conditions,
        _choices,
        _residues,
        _compounds,
        _numerals,
        _unions,
        _structures,
        _clocks_and_ratios,
        _texts,
        _quantities,
    )
    for rule in rules:
        verdict = rule(right, answer)
        if verdict is not None:
            return verdict
    return None


def is_readable(answer: Form) -> bool:
    """Whether the rules know what this is: a number with or without unit, a list of such, or a choice."""
    structure = read_structure(answer.plain)
    parts = [answer.plain] if structure is None else structure.items
    return _LETTER.fullmatch(answer.plain) is not None or all(
        isinstance(read_number(read_quantity(without_name(part)[1]).number), Number) for part in parts
    )


def _same(right: Form, answer: Form) -> bool:
    verdict = decide(right, answer)
    if verdict is None:
        verdict = math_oracle.equal(answer.latex, right.latex)
    return verdict


def _part(text: str) -> Form:
    return form(text)


def _choices(right: Form, answer: Form) -> bool | None:
    r"""Letters of a multiple choice, alone or before what they stand for: ``\textbf{(B)}\ 12``."""
    letter, given = _LETTER.fullmatch(right.plain), _LETTER.fullmatch(answer.plain)
    labeled, given_labeled = _LABELED.fullmatch(right.plain), _LABELED.fullmatch(answer.plain)
    if letter or labeled:
        ours, theirs = letter or labeled, given or given_labeled
        if ours and theirs:
            return ours[1] == theirs[1]
        return _same(_part(labeled[2]), answer) if labeled else None
    return _same(right, _part(given_labeled[2])) if given_labeled else None


def _matrices(right: Form, answer: Form) -> bool | None:
    """Two matrices of one shape, entry by entry; products and sums of matrices are left to math-verify."""
    ours, theirs = matrix_rows(right.latex), matrix_rows(answer.latex)
    if ours is None or theirs is None or r"\begin" in str(ours) + str(theirs):
        return None
    if list(map(len, ours)) != list(map(len, theirs)):
        return False
    return all(
        _same(_part(x), _part(y))
        for row, other in zip(ours, theirs, strict=True)
        for x, y in zip(row, other, strict=True)
    )


def _conditions(right: Form, answer: Form) -> bool | None:
    r"""Sets given by a condition: ``\{x \mid x > 2\}`` is x > 2."""
    ours, theirs = (_CONDITION.fullmatch(side.plain) for side in (right, answer))
    if not ours and not theirs:
        return None
    return _same(_part(ours[2]) if ours else right, _part(theirs[2]) if theirs else answer)


def _residues(right: Form, answer: Form) -> bool | None:
    r"""14 and ``14 \pmod{15}``; a modulus that is missing is no mistake."""
    ours, theirs = (_MODULUS.search(side.plain) for side in (right, answer))
    if not ours and not theirs:
        return None
    if ours and theirs and (ours[1] or ours[2]) != (theirs[1] or theirs[2]):
        return False
    own, given = (_MODULUS.sub("", side.plain).strip() for side in (right, answer))
    return bool(own and given) and _same(_part(own), _part(given))


def _compounds(right: Form, answer: Form) -> bool | None:
    """18 dollars and 50 cents, which is no list."""
    several = is_compound(right.plain) or is_compound(answer.plain)
    return _quantities(right, answer) if several else None


def _numerals(right: Form, answer: Form) -> bool | None:
    """Numbers in another base, 204_5; a base that is missing is no mistake."""
    ours, theirs = (_NUMERAL.fullmatch(without_name(side.plain)[1]) for side in (right, answer))
    if not ours or not theirs or not (ours[2] or theirs[2]):
        return None
    if not (ours[2] and theirs[2]):
        return ours[1] == theirs[1]
    try:
        return int(ours[1], int(ours[2])) == int(theirs[1], int(theirs[2]))
    except ValueError:  # a digit that the base does not have
        return False


def _unions(right: Form, answer: Form) -> bool | None:
    ours, theirs = union_parts(right.plain), union_parts(answer.plain)
    if len(ours) < 2 or len(ours) != len(theirs):
        return None
    return _matched(ours, theirs) or None


def _structures(right: Form, answer: Form) -> bool | None:
    ours, theirs = read_structure(right.plain), read_structure(answer.plain)
    if ours and theirs is None and is_grouped_number(answer.plain):
        theirs = read_structure(answer.plain, split_thousands=True)
    elif theirs and ours is None and is_grouped_number(right.plain):
        ours = read_structure(right.plain, split_thousands=True)
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None:
        return _one_and_several(right, answer, ours, theirs)
    if not _brackets_fit(ours, theirs):
        return False
    own, other = _by_name(ours, theirs)
    if len(own) == len(other):
        ordered = ours.ordered or theirs.ordered
        pairs = all(_same(_part(x), _part(y)) for x, y in zip(own, other, strict=True)) if ordered else None
        if pairs or (pairs is None and _matched(own, other)):
            return True
    return False if _all_readable(own) and _all_readable(other) else None


def _one_and_several(right: Form, answer: Form, ours: Structure | None, theirs: Structure | None) -> bool | None:
    """A single answer beside a list of them: equal only as the one element of a set, or as 1,22 with 1.22."""
    several = ours or theirs
    assert several is not None
    if several.opening == r"\{" and len(several.items) == 1:
        pair = (several.items[0], answer.plain) if ours else (right.plain, several.items[0])
        return _same(_part(pair[0]), _part(pair[1]))
    listed, single = (right, answer) if ours else (answer, right)
    if _DECIMAL_COMMA.fullmatch(listed.plain) and single.plain == listed.plain.replace(",", "."):
        return True
    return False if _all_readable([single.plain]) and _all_readable(several.items) else None


def _brackets_fit(right: Structure, answer: Structure) -> bool:
    """Whether these brackets can mean the same: (1, 2) is no {1, 2} and no [1, 2], but may be 1, 2."""
    kinds = {right.opening, answer.opening}
    if len(right.items) > 2 and len(answer.items) > 2:
        return kinds != {"(", r"\{"}
    if "" in kinds:
        return "[" not in kinds
    return right.opening == answer.opening and right.closing == answer.closing


def _by_name(right: Structure, answer: Structure) -> tuple[list[str], list[str]]:
    """The elements; in the order of their names, where both sides name them all differently; a set's once."""
    if (
        None not in right.names
        and sorted(right.names, key=str) == sorted(answer.names, key=str)
        and len(set(right.names)) == len(right.names)
    ):
        pairs = [
            sorted(zip(side.names, side.items, strict=True), key=lambda pair: str(pair[0])) for side in (right, answer)
        ]
        return ([f"({', '.join(value for _, value in pairs[0])})"], [f"({', '.join(value for _, value in pairs[1])})"])
    sides = []
    for side in (right, answer):
        sides.append(list(dict.fromkeys(side.items)) if side.opening == r"\{" else side.items)
    return sides[0], sides[1]


def _matched(right: list[str], answer: list[str]) -> bool:
    """Whether each element of one has its own equal element of the other."""
    left = [_part(item) for item in answer]
    for item in map(_part, right):
        place = next((i for i, other in enumerate(left) if _same(item, other)), None)
        if place is None:
            return False
        del left[place]
    return not left


def _all_readable(items: list[str]) -> bool:
    return all(read_number(read_quantity(without_name(plain_form(item))[1]).number) is not None for item in items)


def _clocks_and_ratios(right: Form, answer: Form) -> bool | None:
    times = [_TIME.fullmatch(side.plain) for side in (right, answer)]
    if times[0] and times[1]:
        clocks = [(int(m[1] or m[4]), int(m[2] or 0), (m[3] or m[5] or "").lower()) for m in times if m]
        halves = clocks[0][2] == clocks[1][2] or not (clocks[0][2] and clocks[1][2])
        return halves and clocks[0][:2] == clocks[1][:2]
    ratios = [_RATIO.fullmatch(without_name(side.plain.replace(r"\colon", ":"))[1]) for side in (right, answer)]
    if not ratios[0]:
        return None
    terms = [read_number(term) for term in ratios[0].groups() if term]
    other = (
        [read_number(term) for term in ratios[1].groups() if term]
        if ratios[1]
        else [read_number(answer.plain), Number(Fraction(1))]
    )
    if not all(isinstance(term, Number) and term.value for term in [*terms, *other]) or len(terms) != len(other):
        return None
    own, given = ([term.value for term in side if isinstance(term, Number)] for side in (terms, other))
    return all(x * given[0] == y * own[0] for x, y in zip(own, given, strict=True))


def _texts(right: Form, answer: Form) -> bool | None:
    ours, theirs = _text(right), _text(answer)
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None:
        words, other = (ours, answer) if ours else (theirs, right)
        return False if _is_word(words or "") and _all_readable([other.plain]) else None
    if ours == theirs:
        return True
    return False if _is_word(ours) or _is_word(theirs) else None


def _text(side: Form) -> str | None:
    if (symbol := side.plain.replace(" ", "")) in _SYMBOLS:
        return _SYMBOLS[symbol]
    plain = side.plain.casefold()
    if not _TEXT.fullmatch(plain) or len(plain) < 2:
        return None
    words = re.sub(r"^(?:the|an?) ", "", plain.replace("-", " "))
    return _SAME_TEXT.get(words, words)


def _is_word(text: str) -> bool:
    """Whether this is no product of variables."""
    return any(len(word) > 3 or len(set(word)) < len(word) for word in text.split())


def _quantities(right: Form, answer: Form) -> bool | None:
    (name, own), (other_name, given) = without_name(right.plain), without_name(answer.plain)
    ours, theirs = read_quantity(own), read_quantity(given)
    factor = fit(ours, theirs)
    numbers = read_number(ours.number), read_number(theirs.number)
    known = numbers[0] is not None, numbers[1] is not None
    if all(known) and name and other_name and name != other_name and len(name) == len(other_name) == 1:
        return False
    if factor is None:
        return _angles(ours, theirs) if any(known) else False
    if any(known) and _angles(ours, theirs):
        return True
    if not any(known) and factor == 1:
        bare = (ours.number, theirs.number) == (own, given)
        return None if bare or ours.percent != theirs.percent else _same(_part(ours.number), _part(theirs.number))
    values = [_value(reading, side) for reading, side in zip(numbers, (ours, theirs), strict=True)]
    if values[0] is None or values[1] is None:
        return None if any(known) else False
    return _same_values(values[0], values[1], ours, theirs, factor, exact=all(known))


def _value(reading: Reading | None, side: Quantity) -> Reading | None:
    """The number; of a formula without variables, its value."""
    if reading is None:
        value = math_oracle.closed_form(side.number)
        reading = None if value is None else Number(value)
    if isinstance(reading, Number) and side.scale != 1:
        return reading.scaled(Fraction(side.scale))
    return reading


def _same_values(
    right: Reading, answer: Reading, ours: Quantity, theirs: Quantity, factor: Fraction, exact: bool
) -> bool | None:
    if isinstance(answer, Number) and factor != 1:
        answer = answer.scaled(factor)
    equal = same_number if exact else _nearly
    if ours.percent == theirs.percent or isinstance(right, Beyond) or isinstance(answer, Beyond):
        return equal(right, answer)
    hundredth = Fraction(1, 100)
    if ours.percent:  # a sign that is missing is no mistake
        return equal(right, answer) or equal(right.scaled(hundredth), answer)
    return equal(right, answer.scaled(hundredth)) or (right.value > 1 and equal(right, answer))


def _nearly(right: Reading, answer: Reading) -> bool | None:
    """As :func:`same_number`, where one of the values is known to fifty digits only."""
    if not isinstance(right, Number) or not isinstance(answer, Number) or right.cut or answer.cut:
        return same_number(right, answer)
    return abs(right.value - answer.value) <= _NEARLY * abs(right.value) or same_number(right, answer)


def _angles(right: Quantity, answer: Quantity) -> bool | None:
    r"""Degrees beside a bare multiple of π: 90° is \frac{\pi}{2}."""
    for degrees, other in ((right, answer), (answer, right)):
        unit, radians = degrees.unit, other.unit is None or other.unit.dimensions == (("radian", 1),)
        if unit and unit.dimensions == (("degree", 1),) and radians and r"\pi" in other.number:
            first = math_oracle.closed_form(f"({degrees.number}) \\cdot \\pi / 180")
            second = math_oracle.closed_form(other.number)
            return first is not None and second is not None and abs(first - second) <= _NEARLY * abs(first)
    return False if fit(right, answer) is None else None
