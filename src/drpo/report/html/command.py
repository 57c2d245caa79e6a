"""Commands to copy."""

from __future__ import annotations

from drpo.report.html.escape import visible


def command(line: str, limit: int | None = None) -> str:
    """A command line as HTML, with a button that copies what is seen: a hidden character is copied as its code."""
    return f"<div class='framed'><pre data-copy>{visible(line, limit)}</pre></div>"
