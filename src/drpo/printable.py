"""Text that somebody else wrote (a file name, a model, a data set, an error) made safe for a terminal."""

from __future__ import annotations

import unicodedata

#: Invisible characters that ordinary writing needs: line feed, tab, the joiners of Persian, Hindi and emoji.
_ORDINARY = frozenset("\n\t\u200c\u200d")
#: Control, format (bidi overrides, zero-width, tags), lone surrogate, line and paragraph separator.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def is_invisible(character: str) -> bool:
    """Whether ``character`` hides, reorders its neighbors, or steers a terminal."""
    return character not in _ORDINARY and unicodedata.category(character) in _INVISIBLE


def printable(text: str) -> str:
    r"""``text`` with every invisible character written out as JSON writes it; JSON keeps its meaning.

    >>> printable("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(_escaped(character) if is_invisible(character) else character for character in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
