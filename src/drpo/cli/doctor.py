"""`drpo doctor`."""

from __future__ import annotations

import dataclasses

import typer
from rich.table import Table
from rich.text import Text

from drpo.cli.printing import PlainConsole, write_json
from drpo.doctor.check import Check
from drpo.doctor.hosts import check_host, installed, require_host
from drpo.doctor.machine import check_machine
from drpo.errors import ConfigError
from drpo.integrations.hosts import HOSTS, names

STYLE = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


def run_doctor(host: str | None, settings: list[str], parity: bool, as_json: bool) -> None:
    """Check the machine, and ``host`` or every host that is installed; exit with 1 if there is a problem.

    Args:
        host: None: every host that is installed.
        settings: the overrides of a run, for a host that takes them.
        parity: whether to compare each host's gradients with ours.
        as_json: print one JSON object instead of tables.
    """
    if host is not None:
        require_host(host)
    if settings and (host is None or not HOSTS[host].doctor_takes_settings):
        takers = names([name for name, known in HOSTS.items() if known.doctor_takes_settings])
        raise ConfigError(f"{settings[0]!r}: only {takers} takes settings here, the overrides of its run; remove them.")
    sections = {"machine": list(check_machine())}
    missing = []
    for name in HOSTS if host is None else [host]:
        if host is None and installed(name) is None:
            missing.append(name)
            continue
        sections[name] = check_host(name, settings, parity=parity)
    if as_json:
        found = {name: [dataclasses.asdict(check) for check in checks] for name, checks in sections.items()}
        write_json(found)
    else:
        show(sections, missing)
    if any(check.status == "problem" for checks in sections.values() for check in checks):
        raise typer.Exit(1)


def show(sections: dict[str, list[Check]], missing: list[str]) -> None:
    """One table a section; what is not installed in a line below."""
    console = PlainConsole()
    for name, checks in sections.items():
        console.print(f"{name}", style="bold")
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for check in checks:
            fix = f"\nFix: {check.fix}" if check.fix else ""
            table.add_row(Text(check.status, STYLE[check.status]), check.what, check.found + fix)
        console.print(table)
        console.print()
    if missing:
        console.print(f"Not installed here: {', '.join(missing)}. `drpo doctor HOST` says how to get one.")
