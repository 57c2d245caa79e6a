"""Text that somebody else wrote (a model, a data set, a configuration) made safe and visible in HTML."""

from __future__ import annotations

import html
import json
from itertools import groupby

from drpo.printable import is_invisible


def visible(value: object, limit: int | None = None) -> str:
    """``value`` as HTML in which nothing is markup of its own and no character hides or reorders another.

    Args:
        value: text; anything else is shown as JSON.
        limit: characters kept; the middle is left out beyond it, and its length is said.
    """
    return _shortened(as_text(value), limit, "<i>{}</i>", "<em class='cut'>{}</em>")


def visible_plain(value: object, limit: int | None = None) -> str:
    """As :func:`visible` but without tags: for titles, attributes and SVG, where none can stand."""
    return _shortened(as_text(value), limit, "[{}]", "{}")


def readable(value: object, limit: int | None = None) -> str:
    """As :func:`visible_plain` but not escaped: for data of the page's script, which sets it as text."""
    return html.unescape(visible_plain(value, limit))


def as_text(value: object) -> str:
    """``value`` itself if it is text, otherwise what it reads as in JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _shortened(text: str, limit: int | None, mark: str, cut: str) -> str:
    if limit is None or len(text) <= limit:
        return _escaped(text, mark)
    tail = limit // 4
    left_out = cut.format(f"… {len(text) - limit:,} characters left out …")
    return _escaped(text[: limit - tail], mark) + left_out + _escaped(text[len(text) - tail :], mark)


def _escaped(text: str, mark: str) -> str:
    """Escaped, with each run of an invisible character as ``U+XXXX`` in a ``mark`` of its own."""
    if text.isprintable():  # nearly always; nothing in it is invisible
        return html.escape(text)
    pieces = []
    for character, run in groupby(text):
        length = sum(1 for _ in run)
        if is_invisible(character):
            times = f"×{length}" if length > 1 else ""
            pieces.append(mark.format(f"U+{ord(character):04X}{times}"))
        else:
            pieces.append(html.escape(character) * length)
    return "".join(pieces)
