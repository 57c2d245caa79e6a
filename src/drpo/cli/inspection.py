"""`drpo inspect`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import typer

from drpo.cli.inspection_follow import REFRESH, watch
from drpo.cli.inspection_tables import show, show_comparison
from drpo.cli.printing import PlainConsole, write_json
from drpo.cli.progress_bar import progress_bar
from drpo.errors import ConfigError
from drpo.files import replace_text, writing
from drpo.inspection.compare import Comparison, compare
from drpo.inspection.follow import Following
from drpo.inspection.gate import Check, Gate
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

    def require_one_form(self, follow: bool) -> None:
        """Raise a ConfigError if two options that print contradict each other."""
        if self.json and self.markdown:
            raise ConfigError("--json and --markdown both print to the standard output; give one of them")
        if follow and self.is_for_programs:
            name = "--json" if self.json else "--markdown"
            raise ConfigError(f"--follow prints as it goes, and {name} one result; give {name} once the run is over")

    @property
    def is_for_programs(self) -> bool:
        """Whether the standard output is JSON or Markdown alone."""
        return self.json or self.markdown


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a log: as :func:`drpo.inspection.inspect.inspect` takes it."""

    delta: float | None
    objectives: list[str] | None
    columns: ColumnMap
    steps: Steps
    last: int | None

    @classmethod
    def of(
        cls, delta: float | None, objectives: str | None, columns: list[str], steps: str | None, last: int | None
    ) -> Question:
        """From the values of ``--delta``, ``--objectives``, ``--map``, ``--steps`` and ``--last``.

        Raises:
            ConfigError: one of them is malformed, or two contradict each other.
        """
        if last is not None and steps is not None:
            raise ConfigError("--steps and --last both choose the steps that are read; give one of them")
        if last is not None and last < 1:
            raise ConfigError(f"--last must be a number of steps above 0, got {last}")
        names = None if objectives is None else [name.strip() for name in objectives.split(",") if name.strip()]
        return cls(delta, names, parse_column_map(columns), parse_steps(steps), last)

    @property
    def chosen(self) -> bool:
        """Whether the user chose the objectives, so that all of them are shown."""
        return self.objectives is not None

    def ask(self, log: list[Path]) -> Inspection:
        """Inspect ``log`` under a progress bar."""
        with progress_bar("reading", None if STDIN in log else 1.0) as advance:
            return inspect(log, self.delta, self.objectives, advance, self.columns, self.steps, self.last)

    def begin(self, log: list[Path]) -> Following:
        """Follow ``log``.

        Raises:
            ConfigError: the standard input is no log to follow, or only the last steps are wanted.
        """
        if self.last is not None:
            raise ConfigError(
                "--last and --follow do not go together: counts only grow, and a step that is no longer among the last "
                "ones cannot be taken out again. Give --steps FIRST: to follow from a step on."
            )
        return Following(log, self.delta, self.objectives, self.columns, self.steps)


def run_inspect(
    log: list[Path],
    against: Path | None,
    question: Question,
    output: Output,
    fail_on: str | None,
    limits: list[str],
    follow: bool,
) -> None:
    """Inspect the log, print what was found, write the page, and exit with 1 if the gate fails.

    Args:
        log: files, folders, or run directories.
        against: another log, to compare with.
        question: what is asked of both.
        output: what is printed and written.
        fail_on: the value of ``--fail-on``.
        limits: the values of ``--max``.
        follow: read on while the log is written, and show and write what was found so far.
    """
    output.require_one_form(follow)
    gate = Gate.of(fail_on, limits, FIGURES)
    # Objectives run side by side already; more threads within an operation on one chunk only wait for each other.
    torch.set_num_threads(1)

    def ask_other() -> Inspection | None:
        return None if against is None else question.ask([against])

    def page(found: Inspection, refresh: int | None = None) -> Path:
        compared = None if other is None else compare(found, other)
        return _write_page(log[0], output.html, build_inspection_page(found, compared, refresh))

    if follow:
        following, other = question.begin(log), ask_other()
        found = watch(following, output.everything, question.chosen, lambda found: page(found, REFRESH))
    else:
        found, other = question.ask(log), ask_other()
    compared = None if other is None else compare(found, other)
    checks = gate.checks(found)
    _print(found, compared, checks, question, output)
    if output.junit is not None:
        with writing(output.junit, "Name another place with --junit."):
            replace_text(output.junit, junit(found, checks))
    if output.html is not None or not output.is_for_programs:
        place = page(found)
        if not output.is_for_programs:
            PlainConsole().say(f"\npage  {place}")
    _fail(checks)


def _fail(checks: Sequence[Check]) -> None:
    """Say which checks failed, and exit with 1 if any did."""
    failures = [check.failure for check in checks if check.failure]
    for failure in failures:
        PlainConsole(stderr=True).say(f"failed  {failure}")
    if failures:
        raise typer.Exit(1)


def _print(
    found: Inspection, compared: Comparison | None, checks: Sequence[Check], question: Question, output: Output
) -> None:
    """Print what was found, in the form that ``output`` says."""
    if output.json:
        further = {} if compared is None else {"comparison": dataclasses.asdict(compared)}
        further |= {"checks": [dataclasses.asdict(check) for check in checks]} if checks else {}
        write_json(numbered("inspection", found.figures_only() | further))
    elif output.markdown:
        sys.stdout.write(markdown(found, checks, compared))
    else:
        console = PlainConsole()
        show(found, console, everything=output.everything, chosen=question.chosen)
        if compared is not None:
            show_comparison(compared, console, every_objective=output.everything or question.chosen)


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
