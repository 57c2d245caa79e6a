"""Numbers as a reader wants them: leniently read, shortly written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

#: Beyond this a figure is treated as not finite: axes are drawn in floating point too.
LARGEST = 1e100


def finite(value: object) -> float | None:
    """``value`` as a float, or None if it is missing, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else None  # False for NaN too


def mean(values: Iterable[float]) -> float | None:
    """The average; None of nothing."""
    known = list(values)
    return sum(value / len(known) for value in known) if known else None


def plain(value: float | None) -> str:
    """Three significant digits: 0.0123, 1.5e-7, 1,234, 12.3 M; – for None."""
    if value is None:
        return "–"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.00095 or size >= 1e12:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "−")
    if size >= 1e4:
        return _grouped(value).replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def with_exponents(sentence: str) -> str:
    """A sentence whose numbers have exponents as :func:`plain` writes them, in which no line breaks: 4.1e−5, and not
    4.1e-05. Names and paths are left as they are."""
    return re.sub(r"(?<![\w/.-])(\d[\d.]*)e-0*(\d+)(?![\w/-])", r"\1e−\2", sentence)


def _grouped(value: float) -> str:
    for unit, suffix in ((1e9, " G"), (1e6, " M")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share as a percentage: 41.2 %; – for None."""
    return "–" if value is None else f"{plain(value * 100)} %"


def percent_interval(value: str, low: float, high: float) -> str:
    """A share or a count with the interval of the share: 62 % (41–80 %)."""
    return f"{value} ({100 * low:.0f}–{100 * high:.0f} %)"


def signed(difference: float) -> str:
    """A difference to three places with its sign: +0.030, −0.135."""
    return f"{difference:+.3f}".replace("-", "−")


def seconds(value: float | None) -> str:
    """A duration: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if value is None:
        return "–"
    if value < 60:
        return f"{plain(value)} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
