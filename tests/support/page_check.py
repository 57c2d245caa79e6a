"""What every report must be, whatever the run."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from drpo.report.html.style import SCRIPT

_VOID = {"meta", "link", "path", "circle", "rect", "br", "wbr"}


class _Checker(HTMLParser):
    """Tags must nest; nothing may load, and nothing run but the page's own script; links lead within the page or to a
    file beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"iframe", "object", "embed", "img", "form", "base"}
        assert tag != "script" or attrs == [] or attrs[0] == ("type", "application/json")
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in {"src", "srcset", "xlink:href"}
            if name == "href":
                assert value == "data:," or (value and not re.match("[a-z]*:|/", value)), value
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str, most: int = 1_500_000) -> str:
    """``page`` itself, found to be well formed, self-contained and of ``most`` bytes."""
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids)), "an id is there twice"
    assert {link[1:] for link in checker.links if link.startswith("#")} <= set(checker.ids)
    assert page.startswith("<!DOCTYPE html>")
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    assert script == SCRIPT and f"script-src 'sha256-{digest}';" in page and "default-src 'none';" in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style and "url(" not in style
    for drawing in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing.lower().replace("held-out", "")
        assert "inf " not in drawing
    assert len(page.encode("utf-8")) < most
    return page
