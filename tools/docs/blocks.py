"""A block: the part of a Markdown page between two marks that `make docs` writes."""

from __future__ import annotations

import re

from drpo.errors import DataError

START, END = "<!-- {name}: made by make docs -->", "<!-- end of {name} -->"
_STARTS = re.compile(START.format(name=r"([\w-]+)"))


def blocks(text: str) -> list[str]:
    """Return the names of the blocks that begin in the page ``text``, in its order."""
    return _STARTS.findall(text)


def replace_block(text: str, name: str, content: str, page: str) -> str:
    """Return the page with new content in one of its blocks.

    Args:
        text: the whole page.
        name: the block's name.
        content: what stands between the marks, with an empty line on either side; without a newline at its end.
        page: the page's path, for the error.

    Raises:
        DataError: a mark is missing or doubled, or the end stands before the start.
    """
    start, end = START.format(name=name), END.format(name=name)
    for mark in (start, end):
        if (count := text.count(mark)) != 1:
            raise DataError(f"{page}: the mark {mark} must appear once, found {count}; put it around the block {name}")
    head, rest = text.split(start)
    if end not in rest:
        raise DataError(f"{page}: the mark {end} stands before {start}; swap them")
    return f"{head}{start}\n\n{content}\n\n{end}{rest.split(end)[1]}"
