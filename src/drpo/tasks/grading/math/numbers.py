r"""Numbers, exactly: what ``1{,}000``, ``3\frac{1}{2}``, ``0.\overline{3}`` and ``2^{98}`` are, and when two are equal.

Nothing here takes long. A number too large or too small to be written down is :class:`Beyond`, which differs from every
number that can be.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction

#: Numerators and denominators with more bits than this are not computed.
BITS = 20_000
#: A decimal of fewer significant digits stands for itself only, and not for what it may be rounded from.
ROUNDED_DIGITS = 4
_FLOAT_DIGITS = 15
_DEPTH = 80


@dataclass(frozen=True, slots=True)
class Number:
    """A rational number. Of a decimal, ``unit`` is what its last digit counts, and ``digits`` is how many significant
    ones it has; ``cut`` says that more follow (0.142...)."""

    value: Fraction
    unit: Fraction | None = None
    digits: int = 0
    cut: bool = False

    def scaled(self, factor: Fraction) -> Number:
        """The number times ``factor`` > 0, as precise as before."""
        return replace(self, value=self.value * factor, unit=None if self.unit is None else self.unit * factor)


@dataclass(frozen=True, slots=True)
class Beyond:
    """A real number other than 0 that no :class:`Number` equals: of more than 2^(2 · BITS) (``large``), or closer to 0
    than the inverse of that."""

    large: bool
    negative: bool = False


class Unreadable(Exception):
    """Not a number of this module."""


Reading = Number | Beyond


def same_number(right: Reading, answer: Reading) -> bool | None:
    """Whether the two are equal; None if that cannot be told.

    A decimal equals a value that is no whole number if it is that value rounded correctly to at least
    ``ROUNDED_DIGITS`` significant digits. Two decimals are equal digit by digit; the answer may be the more precise.
    """
    if isinstance(right, Beyond):
        return None if right == answer else False
    if isinstance(answer, Beyond):
        return False
    if right.value == answer.value:
        return right.cut == answer.cut
    if right.unit is None and answer.unit is None:
        return False
    distance = abs(right.value - answer.value)
    if max(right.digits, answer.digits) >= _FLOAT_DIGITS and distance * 10**14 <= abs(right.value):
        return right.value.denominator != 1 or answer.value.denominator != 1
    if right.unit is None:
        return _rounded(answer, right.value)
    if answer.unit is None or answer.unit < right.unit:
        return _rounded(right, answer.value)
    return False


def _rounded(decimal: Number, exact: Fraction) -> bool:
    """Whether ``decimal`` is how a number that is not whole is written to that many digits."""
    if decimal.unit is None or exact.denominator == 1:
        return False
    if decimal.cut:
        ahead = abs(exact) - abs(decimal.value)
        return decimal.digits >= ROUNDED_DIGITS - 1 and 0 <= ahead < decimal.unit and exact * decimal.value >= 0
    return decimal.digits >= ROUNDED_DIGITS and abs(decimal.value - exact) <= decimal.unit / 2


def read_number(text: str) -> Reading | None:
    """The number that a plain form writes; None if it writes something else."""
    parser = _Parser(text)
    try:
        reading = parser.sum(0)
        return reading if parser.at_end() else None
    except Unreadable:
        return None


_SIGNS = r"\\(?:cdot|times|div|frac|sqrt|ast)(?![A-Za-z])|\*\*|[-+*/^!(){}\[\]]"
_DIGITS = r"[1-9]\d{0,2}(?:,\d{3})+(?!\d)|[1-9]\d{0,2}(?: \d{3})+(?!\d)|\d+"
_NUMBER = re.compile(
    rf"(?P<whole>{_DIGITS})?(?:\.(?P<part>\d*)"
    r"(?:\\(?:overline|bar|dot)\s*\{(?P<bar>\d+)\}|\((?P<round>\d+)\)(?=\s*$))?(?P<dots>\.\.\.)?)?"
    r"(?:[eE](?P<power>[+-]?\d{1,7})(?![\d.]))?"
)
_MIXED = re.compile(r"\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\s+(\d+)\s*/\s*(\d+)")
_TOKEN = re.compile(rf"\s*(?:(?P<sign>{_SIGNS})|(?P<number>(?=[\d.]){_NUMBER.pattern}))")


class _Parser:
    """Recursive descent over sums, products, powers, factorials, fractions and perfect roots."""

    def __init__(self, text: str):
        self.text, self.place = text, 0

    def at_end(self) -> bool:
        return not self.text[self.place :].strip()

    def peek(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.place)

    def take(self, *signs: str) -> str | None:
        match = self.peek()
        if match and match["sign"] in signs:
            self.place = match.end()
            return match["sign"]
        return None

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise Unreadable

    def sum(self, depth: int) -> Reading:
        total = self.product(depth)
        while sign := self.take("+", "-"):
            term = self.product(depth)
            total = _added(total, _negated(term) if sign == "-" else term)
        return total

    def product(self, depth: int) -> Reading:
        total = self.signed(depth)
        while True:
            if self.take("*", r"\cdot", r"\times", r"\ast"):
                total = _multiplied(total, self.signed(depth))
            elif self.take("/", r"\div"):
                total = _divided(total, self.signed(depth))
            elif (match := self.peek()) and match["sign"] in ("(", "{", r"\sqrt", r"\frac"):
                total = _multiplied(total, self.power(depth))
            else:
                return total

    def signed(self, depth: int) -> Reading:
        if depth > _DEPTH:
            raise Unreadable
        negative = False
        while sign := self.take("-", "+"):
            negative ^= sign == "-"
        reading = self.power(depth)
        return _negated(reading) if negative else reading

    def power(self, depth: int) -> Reading:
        base = self.postfix(depth)
        if not self.take("^", "**"):
            return base
        return _raised(base, self.signed(depth + 1))

    def postfix(self, depth: int) -> Reading:
        reading = self.primary(depth)
        while self.take("!"):
            reading = _factorial(reading)
        return reading

    def primary(self, depth: int) -> Reading:
        for opening, closing in (("(", ")"), ("{", "}"), ("[", "]")):
            if self.take(opening):
                reading = self.sum(depth + 1)
                self.expect(closing)
                return reading
        if self.take(r"\frac"):
            above = self.group(depth)
            return _divided(above, self.group(depth))
        if self.take(r"\sqrt"):
            degree = Number(Fraction(2))
            if self.take("["):
                degree = self.sum(depth + 1)
                self.expect("]")
            return _raised(self.group(depth), _divided(Number(Fraction(1)), degree))
        match = self.peek()
        if match is None or not match["number"] or match["number"] == ".":
            raise Unreadable
        self.place = match.end()
        return self.mixed(_literal(match))

    def group(self, depth: int) -> Reading:
        self.expect("{")
        reading = self.sum(depth + 1)
        self.expect("}")
        return reading

    def mixed(self, whole: Reading) -> Reading:
        r"""``3\frac{1}{2}`` and ``3 1/2``: a whole number and a proper fraction."""
        match = _MIXED.match(self.text, self.place)
        if match is None or isinstance(whole, Beyond) or whole.unit is not None:
            return whole
        above, below = int(match[1] or match[3]), int(match[2] or match[4])
        if not 0 < above < below:
            return whole
        self.place = match.end()
        return Number(whole.value + Fraction(above, below))


def _literal(match: re.Match[str]) -> Reading:
    whole, part = re.sub("[, ]", "", match["whole"] or "0"), match["part"] or ""
    exponent = int(match["power"] or 0)
    if abs(exponent) > BITS:
        return Beyond(exponent > 0) if int(whole + part) else Number(Fraction(0))
    scale = Fraction(10) ** exponent
    value = Fraction(int(whole + part), 10 ** len(part))
    repeated = match["bar"] or match["round"] or (_period(part) if match["dots"] else None)
    if repeated:
        value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(part))
    value = _small(value * scale)
    if repeated or (not part and exponent >= 0):
        return Number(value)
    digits = len((whole + part).lstrip("0"))
    return Number(value, scale / 10 ** len(part), digits, cut=bool(match["dots"]))


def _period(part: str) -> str | None:
    """The digits that repeat at the end of a decimal that goes on: "3" of 0.333..., "142857" of 0.142857142857..."""
    for length in range(1, len(part) // 2 + 1):
        if part[-length:] == part[-2 * length : -length]:
            return part[-length:]
    return None


def _negated(reading: Reading) -> Reading:
    if isinstance(reading, Beyond):
        return replace(reading, negative=not reading.negative)
    return replace(reading, value=-reading.value)


def _added(one: Reading, other: Reading) -> Reading:
    if isinstance(one, Number) and isinstance(other, Number):
        return Number(_small(one.value + other.value))
    beyond, rest = (one, other) if isinstance(one, Beyond) else (other, one)
    if isinstance(beyond, Beyond) and beyond.large and (isinstance(rest, Number) or rest == beyond):
        return beyond
    raise Unreadable  # what is left of two such numbers, or of one that is nearly 0, is not known


def _multiplied(one: Reading, other: Reading) -> Reading:
    if isinstance(one, Number) and isinstance(other, Number):
        if one.unit is not None and _power_of_ten(other):
            return one.scaled(other.value)
        if other.unit is not None and _power_of_ten(one):
            return other.scaled(one.value)
        return Number(_small(one.value * other.value))
    beyond, rest = (one, other) if isinstance(one, Beyond) else (other, one)
    assert isinstance(beyond, Beyond)
    if isinstance(rest, Beyond):
        if rest.large != beyond.large:
            raise Unreadable
        return Beyond(beyond.large, beyond.negative != rest.negative)
    return Number(Fraction(0)) if rest.value == 0 else Beyond(beyond.large, beyond.negative != (rest.value < 0))


def _divided(one: Reading, other: Reading) -> Reading:
    if isinstance(other, Beyond):
        return _multiplied(one, Beyond(not other.large, other.negative))
    if other.value == 0:
        raise Unreadable
    if isinstance(one, Number) and one.unit is not None and _power_of_ten(other):
        return one.scaled(1 / other.value)
    return _multiplied(one, Number(1 / other.value))


def _power_of_ten(number: Number) -> bool:
    digits = str(max(abs(number.value.numerator), number.value.denominator)) if number.value > 0 else ""
    return 1 in (number.value.numerator, number.value.denominator) and digits.strip("0") == "1" and number.unit is None


def _raised(base: Reading, exponent: Reading) -> Reading:
    if isinstance(exponent, Beyond):
        if isinstance(base, Beyond) or not exponent.large or base.value < 0 or base.value in (0, 1):
            raise Unreadable
        return Beyond((base.value > 1) != exponent.negative)
    power = exponent.value
    if isinstance(base, Beyond):
        if power.denominator != 1 or power == 0:
            raise Unreadable
        return Beyond(base.large == (power > 0), base.negative and power.numerator % 2 == 1)
    if power.denominator != 1:
        return _raised(Number(_root(base.value, power.denominator)), Number(Fraction(power.numerator)))
    size = abs(base.value)
    if size == 0 and power < 0:
        raise Unreadable
    if size not in (0, 1) and abs(power) * _bits(size) > BITS:
        above, below = size.numerator, size.denominator
        # |ln size| >= 2 |above - below| / (above + below)
        if 2 * abs(above - below) * abs(power) < 2 * BITS * (above + below):
            raise Unreadable
        return Beyond((size > 1) == (power > 0), base.value < 0 and power.numerator % 2 == 1)
    return Number(_small(base.value ** int(power)))


def _root(value: Fraction, degree: int) -> Fraction:
    """The root, if it is rational."""
    if value < 0 or not 1 < degree <= 64:
        raise Unreadable
    roots = [_whole_root(part, degree) for part in (value.numerator, value.denominator)]
    return Fraction(roots[0], roots[1])


def _whole_root(value: int, degree: int) -> int:
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**degree < value else (low, middle)
    if low**degree != value:
        raise Unreadable
    return low


def _factorial(reading: Reading) -> Reading:
    if isinstance(reading, Beyond):
        if reading.large and not reading.negative:
            return reading
        raise Unreadable
    if reading.value.denominator != 1 or reading.value < 0:
        raise Unreadable
    if reading.value > BITS:
        return Beyond(True)
    if reading.value > BITS // 10:
        raise Unreadable
    return Number(_small(Fraction(math.factorial(int(reading.value)))))


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _small(value: Fraction) -> Fraction:
    if _bits(value) > BITS:
        raise Unreadable
    return value
