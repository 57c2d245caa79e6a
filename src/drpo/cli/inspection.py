"""`drpo inspect`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from drpo.cli.inspection_tables import show
from drpo.cli.printing import PlainConsole, write_json
from drpo.files import replace_text, writing
from drpo.inspection.inspect import inspect
from drpo.inspection.readers.column_map import parse_column_map
from drpo.report.inspection.page import build_inspection_page
from drpo.run_directory import RunDirectory
from drpo.schema import numbered


def run_inspect(
    log: list[Path], delta: float | None, objectives: str | None, html: Path | None, as_json: bool, columns: list[str]
) -> None:
    """Inspect the log, print what was found, and write the page.

    Args:
        log: files, folders, or run directories.
        delta: of every objective that has one; None keeps the run's, or each one's own.
        objectives: names separated by commas; None means all.
        html: where the page goes; None: beside the log.
        as_json: print one JSON object, and write no page unless ``html`` names it.
        columns: the values of ``--map``.
    """
    names = None if objectives is None else [name.strip() for name in objectives.split(",") if name.strip()]
    # Objectives run side by side already; more threads within an operation on one chunk only wait for each other.
    torch.set_num_threads(1)
    with _progress() as advance:
        found = inspect(log, delta, names, advance, parse_column_map(columns))
    console = PlainConsole()
    if as_json:
        write_json(numbered("inspection", dataclasses.asdict(found)))
    else:
        show(found, console)
    if as_json and html is None:
        return
    page = _write_page(log[0], html, build_inspection_page(found))
    if not as_json:
        console.say(f"\npage  {page}")


def _write_page(first: Path, given: Path | None, html: str) -> Path:
    """Write the page where the user said, else beside the log; returns where that is."""
    run = RunDirectory(first)
    if given is None and run.exists():
        run.write_inspection(html)
        return run.inspection_file
    page = given or (first if first.is_dir() else first.parent) / run.inspection_file.name
    with writing(page, "Name another place with --html."):
        replace_text(page, html)
    return page


@contextmanager
def _progress() -> Iterator[Callable[[float], None]]:
    """A bar on the terminal's error stream, so that what is printed can be piped."""
    console = PlainConsole(stderr=True)
    bar = Progress(
        TextColumn("reading"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=1.0)
        yield lambda done: bar.update(task, completed=done)
