"""The frame of every page: its policy, its head, its sections and the list of contents beside them.

A page is one file that asks for nothing. Its policy lets no script run but the page's own, which it names by hash, so
that nothing that a model or a data set wrote can run. Without a script the page can still be read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from string import Template

from drpo.report.html.escape import visible, visible_plain
from drpo.report.html.style import SCRIPT, SCRIPT_HASH, STYLE

#: Longest heading and title that are written out.
LONGEST = 200
#: Fewest sections that want a list of contents.
FEWEST = 3

_FRAME = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '$script_hash'; \
style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
$refresh<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<div class="page$guided">
<header>
$head
</header>
$contents
<main>
$body
</main>
</div>
<script>$script</script>
</body>
</html>
""")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page that the contents list and that can be linked to.

    Args:
        heading: text.
        body: HTML.
        name: its id; empty: made of the heading.
        folded: closed until the reader opens it.
    """

    heading: str
    body: str
    name: str = ""
    folded: bool = False


def document(title: str, head: str, sections: Iterable[Section | str | None], refresh: int | None = None) -> str:
    """The whole page.

    Args:
        title: text.
        head: HTML above everything else.
        sections: in order; text is HTML without a heading, and what is empty is left out.
        refresh: seconds after which the browser loads the page again; None: never.
    """
    shown = [section for section in sections if section]
    named = _named(section for section in shown if isinstance(section, Section))
    listed = _contents(named) if len(named) >= FEWEST else ""
    bodies = iter(named)
    return _FRAME.substitute(
        title=visible_plain(title, LONGEST),
        script_hash=SCRIPT_HASH,
        refresh="" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">\n',
        style=STYLE,
        guided=" guided" if listed else "",
        head=head,
        contents=listed,
        body="\n".join(_drawn(*next(bodies)) if isinstance(section, Section) else section for section in shown),
        script=SCRIPT,
    )


def anchor_name(text: str) -> str:
    """An id for a link: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()[:LONGEST]).strip("-") or "section"


def _named(sections: Iterable[Section]) -> list[tuple[str, Section]]:
    """Each section with an id of its own."""
    taken: Counter[str] = Counter()
    named = []
    for section in sections:
        name = section.name or anchor_name(section.heading)
        taken[name] += 1
        named.append((name if taken[name] == 1 else f"{name}-{taken[name]}", section))
    return named


def _contents(named: list[tuple[str, Section]]) -> str:
    items = "".join(f"<li><a href='#{name}'>{visible(part.heading, LONGEST)}</a></li>" for name, part in named)
    return f"<nav class='contents' aria-label='Contents'><p>On this page</p><ul>{items}</ul></nav>"


def _drawn(name: str, section: Section) -> str:
    said = visible(section.heading, LONGEST)
    link = f"<a class='anchor' href='#{name}' aria-label='Link to this section'>#</a>"
    if section.folded:
        inside = f"<details><summary><h2>{said}</h2></summary>{section.body}</details>"
    else:
        inside = f"<h2>{said}{link}</h2>{section.body}"
    return f"<section id='{name}'>{inside}</section>"
