"""What every report must be, whatever the run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

_VOID = {"meta", "link", "path", "circle", "rect", "br"}


class _Checker(HTMLParser):
    """Tags must nest; nothing may run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "iframe", "object", "embed", "img", "form", "base"}
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in {"src", "srcset", "xlink:href"}
            assert name != "href" or value == "data:,"
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> str:
    """``page`` itself, found to be well formed, self-contained and small."""
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert page.startswith("<!DOCTYPE html>")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style and "url(" not in style
    for drawing in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing.lower().replace("held-out", "")
        assert "inf " not in drawing
    assert len(page.encode("utf-8")) < 1_500_000
    return page
