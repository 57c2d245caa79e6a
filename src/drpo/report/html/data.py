"""Data for the page's script: text that a browser never takes for code or markup."""

from __future__ import annotations

import html
import json
from typing import Any

#: What could end a script element, begin another, or end a line of JavaScript.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def json_text(value: Any) -> str:
    """``value`` as compact JSON that means the same wherever it stands in HTML; surrogates stay escaped.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return "".join(
        f"\\u{ord(character):04x}" if "\ud800" <= character <= "\udfff" else character for character in text
    ).translate(_ESCAPES)


def json_block(name: str, value: Any) -> str:
    """A block of data with the id ``name``, which a browser does not run."""
    return f"<script type='application/json' id='{name}'>{json_text(value)}</script>"


def json_attribute(value: Any) -> str:
    """``value`` as JSON for an attribute in quotes."""
    return html.escape(json_text(value))
