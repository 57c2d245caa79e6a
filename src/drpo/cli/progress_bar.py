"""A progress bar for what reads files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from drpo.cli.printing import PlainConsole


@contextmanager
def progress_bar(what: str, total: float | None = 1.0) -> Iterator[Callable[[float], None]]:
    """A bar on the terminal's error stream, so that what is printed can be piped.

    ``total`` is where it ends, None if unknown.
    """
    console = PlainConsole(stderr=True)
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %" if total else ""),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
