"""Finding the answer in a response, and comparing it with the right one."""

from __future__ import annotations

import re
import unicodedata

_OPEN, _CLOSE = "<answer>", "</answer>"
_NUMBER = re.compile(r"([+-]?)([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:\.([0-9]+))?")
_QUOTES = "\"'`*“”‘’«»"
# Folding these would change what is meant: 10² is not 102, and 1½ is not 11/2.
_MEANINGFUL_FORMS = ("<super>", "<sub>", "<fraction>")


def extract_answer(text: str) -> str:
    """What stands inside the last ``<answer>…</answer>``; without such a pair the whole text. Stripped."""
    before, closed, _ = text.rpartition(_CLOSE)
    _, opened, inside = before.rpartition(_OPEN)
    return (inside if closed and opened else text).strip()


def normalize_answer(text: str) -> str:
    """The form in which two answers are compared.

    - Unicode NFKC (wide digits and the like; superscripts, subscripts and fractions stay), the minus sign
      U+2212 as "-", case folded, runs of white space as one space;
    - quotes, backticks, asterisks and white space around it dropped, and ``. , ; :`` behind it. Other
      punctuation stays: "5!", "-5", "5%" and "(1, 2)" are not "5", "5", "5" and "1, 2";
    - a plain decimal number in one form: no thousands separators, no plus sign, no needless zeros, so that
      "1,000" = "+1000.0" = "01000" and "12.0" = "12". "1e3", "1/2" and "1.000,5" are text, not numbers.
    """
    composed = unicodedata.normalize("NFC", text)
    folded = "".join(_fold(character) for character in composed).replace("\N{MINUS SIGN}", "-").casefold()
    plain = " ".join(unicodedata.normalize("NFC", folded).split())
    stripped = plain.lstrip(_QUOTES + " ").rstrip(_QUOTES + " .,;:")
    return _canonical_number(stripped)


def _fold(character: str) -> str:
    if character.isascii() or unicodedata.decomposition(character).startswith(_MEANINGFUL_FORMS):
        return character
    return unicodedata.normalize("NFKC", character)


def _canonical_number(text: str) -> str:
    """A plain decimal number in its one form, exact to the last digit; other text as it is."""
    match = _NUMBER.fullmatch(text)
    if match is None or (match[2] is None and match[3] is None):
        return text
    whole = (match[2] or "").replace(",", "").lstrip("0") or "0"
    fraction = (match[3] or "").rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return f"-{number}" if match[1] == "-" and number != "0" else number
