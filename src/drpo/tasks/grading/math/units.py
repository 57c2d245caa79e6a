"""Units of measure behind (or before) a number: which they are, and how many of one another is."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from drpo.tasks.grading.math.numbers import Number, read_number


class Unit(NamedTuple):
    """A product of powers of base dimensions, and how many of their units it is. Counted things have no dimension."""

    dimensions: tuple[tuple[str, int], ...]
    factor: Fraction

    def times(self, other: Unit, power: int) -> Unit:
        """This unit times another one to a power."""
        exponents = dict(self.dimensions)
        for name, exponent in other.dimensions:
            exponents[name] = exponents.get(name, 0) + exponent * power
        kept = tuple(sorted((name, exponent) for name, exponent in exponents.items() if exponent))
        return Unit(kept, self.factor * other.factor**power)


NO_UNIT = Unit((), Fraction(1))

#: dimension → names → how many of the dimension's base unit one is. Names of one letter count only behind a space.
_TABLE: dict[str, dict[str, Fraction | int]] = {
    "length": {
        "m meter metre": 1,
        "cm centimeter centimetre": Fraction(1, 100),
        "mm millimeter millimetre": Fraction(1, 1000),
        "dm decimeter decimetre": Fraction(1, 10),
        "km kilometer kilometre": 1000,
        "nm nanometer": Fraction(1, 10**9),
        "in inch inche": Fraction(254, 10000),
        "ft foot feet": Fraction(3048, 10000),
        "yd yard": Fraction(9144, 10000),
        "mi mile": Fraction(1609344, 1000),
    },
    "mass": {
        "kg kilogram kilo": 1,
        "g gram gm": Fraction(1, 1000),
        "mg milligram": Fraction(1, 10**6),
        "lb lbs": Fraction(45359237, 10**8),
        "oz ounce": Fraction(45359237, 16 * 10**8),
    },
    "time": {
        "s sec second": 1,
        "ms millisecond": Fraction(1, 1000),
        "min minute": 60,
        "h hr hour": 3600,
        "day": 86400,
        "week wk": 604800,
    },
    "month": {"month": 1, "year yr": 12, "decade": 120, "century centurie": 1200},
    "volume": {"l L liter litre": 1, "ml mL milliliter millilitre": Fraction(1, 1000), "cc": Fraction(1, 1000)},
    "gallon": {"gal gallon": 1, "quart qt": Fraction(1, 4), "pint pt": Fraction(1, 8), "cup": Fraction(1, 16)},
    "dollar": {"dollar USD usd $ buck": 1, "cent ¢": Fraction(1, 100)},
    "euro": {"euro EUR €": 1},
    "pound sterling": {"£ GBP": 1},
    "yen": {"yen ¥ JPY": 1},
    "yuan": {"yuan RMB CNY": 1},
    "rupee": {"rupee Rs rs ₹ INR": 1},
    "won": {"₩": 1},
    "ruble": {"ruble rouble ₽": 1},
    "peso": {"peso": 1},
    "degree": {"° deg degree": 1},
    "radian": {"rad radian": 1},
    "Celsius": {"°C celsius Celsius": 1},
    "Fahrenheit": {"°F fahrenheit Fahrenheit": 1},
    "kelvin": {"K kelvin": 1},
    "acre": {"acre": 1},
    "ton": {"ton tonne": 1},
    "force": {"N newton": 1},
    "energy": {"J joule": 1, "kJ": 1000},
    "power": {"W watt": 1, "kW kilowatt": 1000},
    "voltage": {"V volt": 1},
    "current": {"A amp ampere": 1},
    "resistance": {"ohm": 1},
    "calorie": {"cal calorie": 1},
    "frequency": {"Hz hertz": 1},
}
_UNITS = {
    name: Unit(((dimension, 1),), Fraction(factor))
    for dimension, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split()
}
_LITER = Unit((("length", 3),), Fraction(1, 1000))
_UNITS |= {
    name: Unit(_LITER.dimensions, unit.factor / 1000)
    for name, unit in _UNITS.items()
    if unit.dimensions == (("volume", 1),)
}
_HOUR = _UNITS["hour"]
_UNITS |= {
    "mph": _UNITS["mile"].times(_HOUR, -1),
    "kph": _UNITS["km"].times(_HOUR, -1),
    "kmph": _UNITS["km"].times(_HOUR, -1),
    "kmh": _UNITS["km"].times(_HOUR, -1),
    "hectare": Unit((("length", 2),), Fraction(10_000)),
    "ha": Unit((("length", 2),), Fraction(10_000)),
    "fps": _UNITS["foot"].times(_UNITS["second"], -1),
    "unit": NO_UNIT,
}
#: A weight or money: it fits either.
POUNDS = ("pound",)

_SCALES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
#: Behind a number these words change what is meant, so that they are not passed over as things that are counted.
_WORDS_THAT_COUNT = (
    "and or not no minus plus times over less more fewer greater than least most at between to from half twice double "
    "remainder mod modulo base squared cubed factorial am pm a.m p.m noon midnight negative if when where for with "
    "unless but because either neither by divided multiplied sqrt root pi infinity th "
    "sin cos tan cot sec csc log ln exp gcd lcm max lim arcsin arccos arctan sinh cosh tanh det"
)
_MEANINGFUL = frozenset(_WORDS_THAT_COUNT.split())
_PASSED_OVER = frozenset(("of", "in", "on", "the", "its", "all"))
_PREFIX = re.compile(r"(?:(?:USD|US|EUR|GBP|Rs\.?)\s*)?([$€£¥₹₩₽])\s*(?=[-.\d\\({])|(?:USD|EUR|GBP|Rs\.?)\s+(?=[-.\d])")
_WORD = re.compile(
    r"\s*(?:(?P<sign>[/*]|\\cdot\b|\\times\b|\\div\b|-(?=[A-Za-z]))|"
    r"(?P<word>°\s?[CF](?![A-Za-z])|[°$€£¥₹₩₽¢]|[A-Za-z][A-Za-z']*\.?)(?P<power>\s*\^\s*\{?\s*-?\d\s*\}?)?)"
)

#: Words with a power and a product, and nothing of a formula.
_ONLY_WORDS = re.compile(
    r"[A-Za-z][^=<>\\+!\[\](),0-9]*(?:\^\s*\{?\s*-?\d\s*\}?[^=<>\\+()!]*)?(?:\\(?:cdot|times)[^=<>\\+()!]*)?"
)


class Quantity(NamedTuple):
    """A number's text and what stands with it: a percent sign, a unit (None if there is none), counted things."""

    number: str
    percent: bool
    unit: Unit | None
    scale: int = 1
    pounds: bool = False


def read_quantity(text: str) -> Quantity:
    """Part a plain form into what is measured and its unit; the whole is the number where no unit can be read."""
    unsigned, money = text.lstrip("-+ "), None
    before = _PREFIX.match(unsigned)
    if before is not None:
        money = _UNITS.get(before[1] or before[0].strip(". "))
        text = text[: len(text) - len(unsigned)] + unsigned[before.end() :]
    start = _start_of_words(text)
    number, words = text[:start].rstrip(), text[start:]
    if not _measures(number):
        return _compound(text) or Quantity(text, False, money)
    percent = words.startswith("%")
    if percent:
        words = words[1:].strip()
    if not number or (not words and not percent):
        return Quantity(text, False, money)
    touching, counts = not text[start - 1].isspace(), read_number(number) is not None
    read = _read_words(words, touching, counts)
    if read is None:
        return _compound(text) or Quantity(text, False, money)
    unit, scale, pounds = read
    return Quantity(number, percent, unit if unit is not None else money, scale, pounds)


def _start_of_words(text: str) -> int:
    """Where the words at the end begin: behind the last digit, bracket, or letter of a formula."""
    for match in re.finditer(r"(?<=[\d})\].])\s*(?=[%°$€£¥₹₩₽¢A-Za-z])|(?<=[A-Za-z])\s+(?=[%°$€£¥₹₩₽¢A-Za-z])", text):
        start = match.end()
        if text[start] in "%°$€£¥₹₩₽¢" or _ONLY_WORDS.fullmatch(text, start):
            if re.match(r"[eE][+-]?\d", text[start:]) or text[:start].rstrip().endswith("\\"):
                continue
            return start
    return len(text)


def _measures(number: str) -> bool:
    """Whether this may be what a unit stands behind: a number or a formula without variables."""
    variables = re.sub(r"\\[A-Za-z]+|\de[-+]?\d", "", number)
    return bool(re.search(r"\d|\\pi\b", number)) and not re.search("[A-Za-z]", variables)


def _compound(text: str) -> Quantity | None:
    """``5 feet 6 inches`` and ``18 dollars and 50 cents``, in the first of the units."""
    total, first = Fraction(0), None
    parts = re.split(r"(?<=[A-Za-z])\s*(?:,|\band\b)?\s*(?=\d)", text)
    for part in parts:
        match = re.fullmatch(r"(\d[\d.,/ ]*?)\s*([A-Za-z]+)\.?", part)
        number = read_number(match[1]) if match else None
        unit = _named(match[2], single=True) if match else None
        if not isinstance(number, Number) or unit is None or (first and first.dimensions != unit.dimensions):
            return None
        first = first or unit
        total += number.value * unit.factor
    if first is None or len(parts) < 2:
        return None
    total /= first.factor
    return Quantity(f"{total.numerator}/{total.denominator}", False, first)


def is_compound(text: str) -> bool:
    """Whether this is one quantity in several units."""
    return _compound(text) is not None


def _read_words(words: str, touching: bool, counts: bool) -> tuple[Unit | None, int, bool] | None:
    """The unit, the scale (million) and whether "pounds" was said; None where the words may mean something else.

    Words that are no unit are things that are counted, if they may be (``counts``) and are long enough for a word.
    """
    unit: Unit | None = None
    scale, power, place, pounds, prefix_power, first = 1, 1, 0, False, 1, True
    while place < len(words.rstrip()):
        match = _WORD.match(words, place)
        if match is None:
            return None
        place = match.end()
        if match["sign"]:
            power = -1 if match["sign"] in ("/", "\\div") else power
            continue
        name = match["word"].replace("° ", "°")
        lower = name.rstrip(".").lower()
        if lower in _MEANINGFUL and not (lower == "by" and unit):
            return None
        if lower in _PASSED_OVER:
            continue
        if lower in ("per", "an", "each", "every") or (lower == "a" and not first):
            power = -1
        elif lower in _SCALES or lower.removesuffix("s") in _SCALES:
            scale *= _SCALES.get(lower) or _SCALES[lower.removesuffix("s")]
        elif lower in ("square", "sq", "cubic", "cu"):
            prefix_power = 2 if lower.startswith("sq") else 3
        else:
            one = _named(name.rstrip("."), single=not (touching and first))
            pounds |= lower.removesuffix("s") in POUNDS
            if one is None and lower.removesuffix("s") not in POUNDS and (len(name) < 3 or not counts):
                return None  # 5x and 5 x are products
            raised = re.sub(r"[\s^{}]", "", match["power"] or "") or str(prefix_power)
            last = unit is None or power == -1 or place == len(words)
            unit = (unit or NO_UNIT).times(one, power * int(raised)) if one is not None and last else unit
            prefix_power, power = 1, 1
        first = False
    return unit, scale, pounds


def _named(name: str, single: bool) -> Unit | None:
    if len(name) == 1 and name.isalpha() and not single:
        return None
    for form in (
        name,
        name.lower(),
        name.removesuffix("s"),
        name.lower().removesuffix("s"),
        name.lower().removesuffix("es"),
    ):
        if form in _UNITS and not (len(form) == 1 and form.isalpha() and form != name):
            return _UNITS[form]
    return None


def fit(right: Quantity, answer: Quantity) -> Fraction | None:
    """How many of the right answer's units one of the answer's is; 1 if a side names none, None if they differ."""
    one, other = (_pounds(beside) if side.pounds else side.unit for side, beside in ((right, answer), (answer, right)))
    if one is None or other is None or not one.dimensions or not other.dimensions:
        return Fraction(1)
    return other.factor / one.factor if one.dimensions == other.dimensions else None


def _pounds(beside: Quantity) -> Unit | None:
    """What "pounds" means beside another unit: money, or a weight."""
    return _UNITS["£"] if beside.unit == _UNITS["£"] else _UNITS["lb"]
