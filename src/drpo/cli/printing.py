"""The one place that prints: text is never markup, and nothing in it steers the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from drpo.files import without_nan
from drpo.printable import printable

#: Of a file or pipe, which has no width: no table is cut.
PIPE_WIDTH = 160


class PlainConsole(Console):
    """A console that prints text as it stands; invisible characters are written out (:func:`printable`).

    Styles come from rich's own objects (``Text``, ``style=``), never from the text.
    """

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line, which the terminal wraps."""
        self.print(text, style=style, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """Before the layout, so that columns are as wide as what is printed."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever the text came from."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def wide_console() -> PlainConsole:
    """A console for tables: as wide as the terminal, and wide in a file or pipe."""
    return PlainConsole(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def write(text: str) -> None:
    """Write a line to standard output, for programs to read."""
    sys.stdout.write(printable(text) + "\n")


def write_json(value: Any, indent: int | None = None) -> None:
    """Write ``value`` as JSON to standard output; figures that do not exist are null."""
    write(json.dumps(without_nan(value), ensure_ascii=False, allow_nan=False, indent=indent))
