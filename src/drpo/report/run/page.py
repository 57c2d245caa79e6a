"""The report of a run: one self-contained static HTML page, from its run directory alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drpo.report.html.command import command
from drpo.report.html.escape import visible
from drpo.report.html.frame import Section, document
from drpo.report.run.curves import charts_by_section, other_objectives
from drpo.report.run.headline import LONGEST, headline, title_of
from drpo.report.run.history import History
from drpo.report.run.remarks import remarks
from drpo.report.run.responses import responses
from drpo.report.run.tokens import tokens
from drpo.run_directory import RunDirectory

#: Most settings that are listed; the rest is in config.yaml.
MOST_SETTINGS = 200
#: Seconds after which the page of a run that goes on is loaded again.
REFRESH = 15


def build_report(run: RunDirectory) -> str:
    """The page as HTML: no script but the page's own, no request, the same bytes for the same run.

    Any state of a run will do: without updates or evaluations, interrupted, with figures that are not finite.

    Raises:
        CheckpointError: the directory holds no run.
        DataError: one of its files is malformed.
    """
    history = History.read(run)
    return document(
        title_of(history),
        headline(history) + remarks(history),
        [
            other_objectives(history),
            *(_charts(*section) for section in charts_by_section(history)),
            tokens(run, history),
            responses(history),
            _configuration(history),
            _reproduce(history),
        ],
        refresh=REFRESH if history.manifest.get("status") == "running" else None,
    )


def write_report(run: RunDirectory) -> None:
    """Build the page and write it as the run's ``report.html``.

    Raises:
        CheckpointError: the directory holds no run, or cannot be written to.
        DataError: one of its files is malformed.
    """
    run.write_report(build_report(run))


def _charts(heading: str, introduction: str, figures: list[str]) -> Section:
    said = f"<p class='soft'>{introduction}</p>" if introduction else ""
    return Section(heading, f"{said}<div class='charts'>{''.join(figures)}</div>")


def _configuration(history: History) -> Section:
    settings = list(_flat(history.config))
    left_out = len(settings) - MOST_SETTINGS
    more = f"<p class='soft'>{left_out:,} more are in config.yaml.</p>" if left_out > 0 else ""
    versions = history.manifest.get("versions")
    installed = (
        f"<h3>Versions</h3><div class='tables'>{_table(list(versions.items()))}</div>"
        if isinstance(versions, Mapping) and versions
        else ""
    )
    return Section("Configuration", f"<div class='tables'>{_table(settings[:MOST_SETTINGS])}</div>{more}{installed}")


def _table(rows: list[tuple[str, object]]) -> str:
    cells = (f"<tr><th>{_breakable(key)}</th><td><bdi>{visible(value, LONGEST)}</bdi></td></tr>" for key, value in rows)
    return f"<table>{''.join(cells)}</table>"


def _breakable(key: str) -> str:
    """A key of a configuration that a narrow column breaks between its words and not inside one."""
    return visible(key, LONGEST).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _reproduce(history: History) -> Section:
    if history.manifest.get("parent"):  # its configuration alone would start from the base
        return Section(
            "Reproduce", "<p>A branch: the command at the top starts it again from its parent's checkpoint.</p>"
        )
    again = command("drpo train config.yaml --out another-directory")
    return Section("Reproduce", f"<p>In this run's directory, with its resolved configuration:</p>{again}")
