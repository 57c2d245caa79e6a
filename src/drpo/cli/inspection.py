"""`drpo inspect`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from drpo.cli.inspection_tables import show, show_comparison
from drpo.cli.printing import PlainConsole, write_json
from drpo.errors import ConfigError
from drpo.files import replace_text, writing
from drpo.inspection.compare import compare
from drpo.inspection.gate import Gate
from drpo.inspection.inspect import FIGURES, inspect
from drpo.inspection.readers.column_map import ColumnMap, parse_column_map
from drpo.inspection.readers.jsonl import STDIN
from drpo.inspection.result import Inspection
from drpo.inspection.steps import Steps, parse_steps
from drpo.report.inspection.junit import junit
from drpo.report.inspection.markdown import markdown
from drpo.report.inspection.page import build_inspection_page
from drpo.run_directory import RunDirectory
from drpo.schema import numbered


@dataclass(frozen=True, slots=True)
class Output:
    """Where an inspection goes.

    Args:
        html: the page; None: beside the log.
        json: print one JSON object instead of tables, and write no page unless ``html`` names it.
        markdown: print a summary in Markdown instead, likewise.
        everything: print all findings, objectives and tables.
        junit: a file for the gate's checks.
    """

    html: Path | None
    json: bool
    markdown: bool
    everything: bool
    junit: Path | None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a log: as :func:`drpo.inspection.inspect.inspect` takes it."""

    delta: float | None
    objectives: list[str] | None
    columns: ColumnMap
    steps: Steps

    @classmethod
    def of(cls, delta: float | None, objectives: str | None, columns: list[str], steps: str | None) -> Question:
        """From the values of ``--delta``, ``--objectives``, ``--map`` and ``--steps``.

        Raises:
            ConfigError: one of them is malformed.
        """
        names = None if objectives is None else [name.strip() for name in objectives.split(",") if name.strip()]
        return cls(delta, names, parse_column_map(columns), parse_steps(steps))

    def ask(self, log: list[Path]) -> Inspection:
        """Inspect ``log`` under a progress bar."""
        with _progress(None if STDIN in log else 1.0) as advance:
            return inspect(log, self.delta, self.objectives, advance, self.columns, self.steps)


def run_inspect(
    log: list[Path],
    against: Path | None,
    question: Question,
    output: Output,
    fail_on: str | None,
    limits: list[str],
) -> None:
    """Inspect the log, print what was found, write the page, and exit with 1 if the gate fails.

    Args:
        log: files, folders, or run directories.
        against: another log, to compare with.
        question: what is asked of both.
        output: what is printed and written.
        fail_on: the value of ``--fail-on``.
        limits: the values of ``--max``.
    """
    if output.json and output.markdown:
        raise ConfigError("--json and --markdown both print to the standard output; give one of them")
    gate = Gate.of(fail_on, limits, FIGURES)
    # Objectives run side by side already; more threads within an operation on one chunk only wait for each other.
    torch.set_num_threads(1)
    found = question.ask(log)
    compared = None if against is None else compare(found, question.ask([against]))
    checks = gate.checks(found)
    console = PlainConsole()
    if output.json:
        comparison = {} if compared is None else {"comparison": dataclasses.asdict(compared)}
        write_json(numbered("inspection", dataclasses.asdict(found) | comparison))
    elif output.markdown:
        sys.stdout.write(markdown(found, checks, compared))
    else:
        show(found, console, everything=output.everything, chosen=question.objectives is not None)
        if compared is not None:
            show_comparison(compared, console)
    if output.junit is not None:
        with writing(output.junit, "Name another place with --junit."):
            replace_text(output.junit, junit(found, checks))
    quiet = output.json or output.markdown
    if output.html is not None or not quiet:
        page = _write_page(log[0], output.html, build_inspection_page(found, compared))
        if not quiet:
            console.say(f"\npage  {page}")
    failures = [check.failure for check in checks if check.failure]
    for failure in failures:
        PlainConsole(stderr=True).say(f"failed  {failure}")
    if failures:
        raise typer.Exit(1)


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
def _progress(total: float | None) -> Iterator[Callable[[float], None]]:
    """A bar on the terminal's error stream, so that what is printed can be piped.

    ``total`` is where it ends, None if unknown.
    """
    console = PlainConsole(stderr=True)
    bar = Progress(
        TextColumn("reading"),
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
