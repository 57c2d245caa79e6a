"""`drpo compare`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.padding import Padding
from rich.table import Table

from drpo.cli.printing import PlainConsole, wide_console, write_json
from drpo.cli.progress_bar import progress_bar
from drpo.comparison.compare import compare_runs, csv_rows
from drpo.comparison.result import FIGURES, RunComparison
from drpo.errors import ConfigError
from drpo.files import replace_text, writing
from drpo.lab.csv_tables import csv_text
from drpo.report.comparison.page import build_comparison_page
from drpo.report.html.quantities import plain, seconds
from drpo.schema import numbered

PAGE = "comparison.html"
#: Settings and runs that the terminal lists; the page has all.
MOST_SETTINGS, MOST_RUNS = 12, 40


@dataclass(frozen=True, slots=True)
class Output:
    """Where a comparison is written.

    Args:
        html: the page; None: ``comparison.html`` in the directory given if it is the only one, else here.
        csv: a file for the runs, a line each; None: none.
        json: print one JSON object instead of tables.
    """

    html: Path | None
    csv: Path | None
    json: bool


def run_compare(paths: Sequence[Path], output: Output) -> None:
    """Compare the runs, print the tables or JSON, and write the page."""
    if output.csv is not None and output.csv == output.html:
        raise ConfigError(f"--csv and --html name the same file, {output.csv}; give two")
    with progress_bar("reading") as advance:
        found = compare_runs(paths, advance)
    console = PlainConsole()
    if output.json:
        write_json(numbered("comparison", dataclasses.asdict(found)))
    else:
        _show(found)
    if output.csv is not None:
        lines = csv_rows(found)
        with writing(output.csv, "Name another place with --csv."):
            replace_text(output.csv, csv_text("comparison", list(lines[0]), lines))
    if output.html is not None or not output.json:
        only = paths[0] if len(paths) == 1 else Path()
        page = output.html or only / PAGE
        with writing(page, "Name another place with --html."):
            replace_text(page, build_comparison_page(found))
        if not output.json:
            console.say(f"\npage  {page}")


def _show(found: RunComparison) -> None:
    console = wide_console()
    console.say(found.sentence, style="bold")
    for remark in found.remarks:
        console.say(f"note: {remark}")
    _print(console, "Runs", _runs(found), len(found.rows) - MOST_RUNS)
    if found.settings:
        _print(console, "Settings that differ", _settings(found), len(found.settings) - MOST_SETTINGS)
    if found.differences:
        _print(console, "Differences", _differences(found), 0)


def _print(console: PlainConsole, title: str, table: Table, left_out: int) -> None:
    console.say(f"\n{title}", style="bold")
    console.print(Padding(table, (0, 0, 0, 2)))
    if left_out > 0:
        console.say(f"  and {left_out} more on the page")


def _runs(found: RunComparison) -> Table:
    table = _table("configuration", "seed", "held-out accuracy", "95 % interval", "best", "reward", "tokens", "time")
    for row in found.rows[:MOST_RUNS]:
        before = f"{plain(row.accuracy_before)} → " if row.accuracy_before is not None else ""
        interval = "–" if row.accuracy_low is None else f"{plain(row.accuracy_low)} to {plain(row.accuracy_high)}"
        best = "–" if row.best_accuracy is None else f"{plain(row.best_accuracy)} (step {row.best_step})"
        table.add_row(
            row.group,
            "–" if row.seed is None else str(row.seed),
            before + plain(row.accuracy),
            interval,
            best,
            plain(row.reward),
            plain(float(row.tokens)),
            seconds(row.seconds),
        )
    return table


def _settings(found: RunComparison) -> Table:
    table = _table("setting", *found.groups)
    for key, values in list(found.settings.items())[:MOST_SETTINGS]:
        table.add_row(key, *("–" if value is None else str(value) for value in values))
    return table


def _differences(found: RunComparison) -> Table:
    table = _table("", "", "difference", "95 % interval", "basis")
    for one in found.differences:
        interval = "–" if one.low is None or one.high is None else f"{one.low:+.3f} to {one.high:+.3f}"
        table.add_row(FIGURES[one.figure], f"{one.ours} − {one.theirs}", f"{one.value:+.3f}", interval, one.basis)
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head)
    return table
