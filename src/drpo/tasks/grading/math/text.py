"""Answers as people write them, in one form: Unicode as LaTeX, no delimiters, no words around the answer."""

from __future__ import annotations

import re
import unicodedata

_SYMBOLS = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{NON-BREAKING HYPHEN}": "-",
    "\N{HYPHEN}": "-",
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∙": r"\cdot ",
    "∗": "*",
    "÷": r"\div ",
    "∕": "/",
    "\N{FRACTION SLASH}": "/",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "π": r"\pi ",
    "∞": r"\infty ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "⌀": r"\emptyset ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "º": "°",
    "˚": "°",
    "…": "...",
    "⋯": "...",
    "∴": r"\therefore ",
    "℃": "°C",
    "℉": "°F",
    "′": "'",
    "→": r"\to ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "∠": r"\angle ",
    "\N{ZERO WIDTH SPACE}": "",
    "\ufeff": "",
    "\N{WORD JOINER}": "",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
}
_SYMBOLS |= {
    chr(code): f"\\{name} "
    for name, code in (
        ("alpha", 0x3B1),
        ("beta", 0x3B2),
        ("gamma", 0x3B3),
        ("delta", 0x3B4),
        ("theta", 0x3B8),
        ("lambda", 0x3BB),
        ("mu", 0x3BC),
        ("sigma", 0x3C3),
        ("phi", 0x3C6),
        ("omega", 0x3C9),
    )
}
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z]|\([^()]*\)|\{[^{}]*\})")
_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}
_BARRED = re.compile("((?:[0-9][\u0304\u0305\u0307])+)")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SPACES = re.compile(r"\\(?:[,;:> ]|quad\b|qquad\b|thinspace\b|enspace\b)|~|[\t\n\r\f\v\u00a0\u2000-\u200a\u202f]")
_NOTHING = re.compile(
    r"\\!\s*|\\(?:left|right|bigl?|bigr|Bigl?|Bigr|biggl?|biggr|Biggl?|Biggr|displaystyle|textstyle|limits|nolimits|"
    r"boldsymbol|mathstrut|strut)(?![A-Za-z])\.?"
)
_EDGE = " \t\n\"'`*_“”‘’"
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|and|i\.e\.)\b[,:]?\s+|\\therefore\s*|(?:the|my|our|its?)\s+|"
    r"(?:final|correct|right|exact|numerical|total)\s+|"
    r"(?:answer|result|solution|value|sum|product|total|number)\s*(?:is|are|was|equals|:|=|of)+\s*|"
    r"(?:it\s+is|there\s+(?:is|are)|equals|equal\s+to|exactly|approximately|about|around|roughly|is)\s+|"
    r"(?:=|\\approx|\\implies|\\Rightarrow|:)\s*)",
    re.IGNORECASE,
)
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|textsf|texttt|mathrm|mathbf|mathit|mathsf|mbox|hbox|emph|"
    r"operatorname\*?|underline|rm|bf|it)\s*\{([^{}]*)\}"
)
_SWITCH = re.compile(
    r"\\(?:rm|bf|it|sf|tt|tiny|small|normalsize|large|Large|LARGE|huge|Huge|checkmark|square|blacksquare)(?![A-Za-z])|"
    r"\\(?:text)?color\s*\{[^{}]*\}"
)
_WORD_SIGNS = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\%|\\?%|\bper\s?cent(?:age)?\b(?!\s+points?)|\bpct\b", re.IGNORECASE), "%"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\^\s*\{?°\}?|\\degree\b"), "°"),
    (re.compile(r"(\d)\s*\{\s*,\s*\}\s*(?=\d)"), r"\1,"),
    (re.compile(r"(\d)\s*\^?\s*\{?\s*(?:st|nd|rd|th)\}?(?![A-Za-z])"), r"\1"),
    (re.compile(r"\\(?:leq|leqslant|le)(?![A-Za-z])|<="), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant|ge)(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\(?:varnothing|emptyset)(?![A-Za-z])|\\\{\s*\\\}"), r"\\emptyset "),
    (re.compile(r"\\(?:ldots|dots|cdots|dotsc|dotsb)(?![A-Za-z])"), "..."),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"^\s*(?:negative|minus)\s+(?=[\d\\])", re.IGNORECASE), "-"),
    (re.compile(r"\s\((?:since|because|as|where|for|with|approximately|which|i\.e\.)\s.*\)$"), ""),
    (re.compile(r"\\langle(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"\\lbrack(?![A-Za-z])"), "["),
    (re.compile(r"\\rbrack(?![A-Za-z])"), "]"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d)"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    # 9.8 \frac{\text{m}}{\text{s}^2}
    (re.compile(r"(?<=\d)\s*\\frac\s*\{\s*([A-Za-z]+)\s*\}\s*\{\s*([A-Za-z]+(?:\s*\^\s*\{?\d\}?)?)\s*\}"), r" \1/\2"),
)


def latex_form(text: str) -> str:
    r"""The answer alone in LaTeX: ``"The answer is $18 \text{ dollars}$."`` is ``18 \text{ dollars}``."""
    text = _without_dollars(_without_boxes(_unicode_as_latex(text.replace('\\"', '"'))))
    text = re.sub(r"\\[\[\]()]|^\s*(?:\\\\)+(?![A-Za-z])|(?:\\\\)+\s*$|\\[,;:]\s*$", " ", text)
    if r"\begin" not in text:  # commands with a doubled backslash, of texts that were escaped twice
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
    text = re.sub(r"(?<![A-Za-z])\\(?:mathrm|text)\s*\{([ie])\}", r"\1", text)
    return " ".join(_without_words(text).split())


def plain_form(latex: str) -> str:
    r"""A latex form without its layout: ``18\,\text{cm}^{2}`` is ``18 cm^{2}``."""
    text = _NOTHING.sub("", latex)
    text = _SPACES.sub(" ", text)
    previous = None
    while previous != text:
        previous = text
        text = _TEXT.sub(r" \1 ", text)
    text = _SWITCH.sub(" ", text).replace("\\$", "$")
    for pattern, replacement in _WORD_SIGNS:
        text = pattern.sub(replacement, text)
    text = _without_words(" ".join(text.split()))
    while text.startswith("{") and closing_brace(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _without_words(text: str) -> str:
    """Without "the answer is" before the answer and punctuation around it."""
    previous = None
    while previous != text:  # each step may bare another: "**= 5.**"
        previous = text
        text = _without_end(text.strip(_EDGE))
        match = _LEAD.match(text)
        if match and match.end() < len(text):
            text = text[match.end() :]
    return text


def _unicode_as_latex(text: str) -> str:
    text = _ROOT.sub(lambda m: f"\\sqrt{_DEGREES[m[1]]}{{{m[2].strip('(){}')}}}", text)
    text = _BARRED.sub(lambda m: "\\overline{" + "".join(filter(str.isdecimal, m[0])) + "}", text)
    text = _RAISED.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[0]).replace("\N{MINUS SIGN}", "-") + "}", text)
    text = _LOWERED.sub(lambda m: "_{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    return text if text.isascii() else "".join(map(_as_latex, text))


def _as_latex(character: str) -> str:
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    composed = unicodedata.normalize("NFKC", character)
    above, slash, below = composed.partition("\N{FRACTION SLASH}")
    if slash and above and below:
        return f"\\frac{{{above}}}{{{below}}}"
    return composed


def _without_boxes(text: str) -> str:
    """The content of every box in its place."""
    while match := _BOX.search(text):
        end = closing_brace(text, match.end() - 1)
        if end < 0:
            return text[: match.start()] + text[match.end() :]
        text = text[: match.start()] + text[match.end() : end] + text[end + 1 :]
    return text


def _without_dollars(text: str) -> str:
    """Without the signs that open and close mathematics; a single sign, or an escaped one, stands for money."""
    places = [match.start() for match in re.finditer(r"(?<!\\)\$", text)]
    if len(places) % 2 and not text.startswith("$$"):
        return text
    return re.sub(r"(?<!\\)\$", "", text)


def _without_end(text: str) -> str:
    """Without the punctuation behind it; an ellipsis stays."""
    while text and text[-1] in ".,;:" and not text.endswith("...") and not text.endswith(("\\,", "\\;", "\\:")):
        text = text[:-1].rstrip(_EDGE)
    return text


def closing_brace(text: str, start: int) -> int:
    """The place of the brace that closes the one at ``start``; -1 if there is none."""
    depth, escaped = 0, False
    for place in range(start, len(text)):
        character = text[place]
        if escaped or character == "\\":
            escaped = not escaped
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return place
    return -1
