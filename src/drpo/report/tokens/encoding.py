"""Tokens as compact data for the page's script: about 30 bytes a token, so that 50,000 of them make 1.5 MB."""

from __future__ import annotations

import base64
import math
import sys
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby

from drpo.report.html.escape import readable

#: Characters of a token's text that are kept.
LONGEST = 200
#: More combining characters one after the other than any writing needs are shown as codes.
MOST_COMBINING = 4
#: A gradient weight is kept to this part, and within ±32.
WEIGHT_STEP = 0.001
#: In place of a weight that does not exist.
NO_WEIGHT = -32768


def floats(values: Iterable[float]) -> str:
    """Numbers in single precision."""
    return _packed("f", [_single(value) for value in values])


def weights(values: Iterable[float]) -> str:
    """Gradient weights, in thousandths."""
    return _packed("h", [_thousandths(value) for value in values])


def places(values: Iterable[int]) -> str:
    """Places in a list, four bytes each."""
    return _packed("I", values)


def flags(places: Iterable[int], count: int) -> str:
    """One bit for each of ``count`` tokens, set at these places; the lowest bit of a byte first."""
    packed = bytearray(-(-count // 8))
    for place in places:
        packed[place // 8] |= 1 << place % 8
    return base64.b64encode(packed).decode("ascii")


def vocabulary(texts: Iterable[str | None]) -> tuple[list[str], list[int]]:
    """The different texts, made safe to show, and the place of each text among them; the first stands for no text."""
    known: dict[str | None, int] = {None: 0}
    found = [known.setdefault(text, len(known)) for text in texts]
    return ["" if text is None else shown_text(text) for text in known], found


def shown_text(text: str) -> str:
    """A token's text in which no character hides, reorders others, or piles up on its neighbors."""
    shown = readable(_unpiled(text), LONGEST)
    return f"◌{shown}" if shown and unicodedata.category(shown[0]).startswith("M") else shown


def _unpiled(text: str) -> str:
    """``text`` with long runs of combining characters written as codes."""
    pieces = []
    for combining, run in groupby(text, key=lambda character: unicodedata.category(character).startswith("M")):
        characters = "".join(run)
        if combining and len(characters) > MOST_COMBINING:
            pieces += [characters[:MOST_COMBINING], f"[{len(characters) - MOST_COMBINING} more combining characters]"]
        else:
            pieces.append(characters)
    return "".join(pieces)


def _single(value: float) -> float:
    """``value`` as single precision holds it; infinite where that cannot."""
    try:
        return array("f", [value])[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _thousandths(weight: float) -> int:
    return NO_WEIGHT if math.isnan(weight) else round(max(-32.0, min(32.0, weight)) / WEIGHT_STEP)


def _packed(kind: str, values: Iterable[float] | Sequence[int]) -> str:
    """The values one after the other, the low byte first, in base 64."""
    packed = array(kind, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode("ascii")
