"""`drpo report`."""

from __future__ import annotations

from pathlib import Path

from drpo.cli.printing import PlainConsole
from drpo.report import write_report
from drpo.run_directory import RunDirectory


def run_report(path: Path) -> None:
    """Write the report of the run at ``path`` and say where it is."""
    console, run = PlainConsole(), RunDirectory(path)
    write_report(run)
    for gap in run.gaps():
        console.say(f"note: {gap}")
    console.say(f"report  {run.report_file}")
