"""`drpo objectives --compare` and `--alias`: tables side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from drpo.cli.printing import wide_console, write_json
from drpo.errors import ConfigError
from drpo.objectives import Objective
from drpo.objectives.aliases import ALIASES
from drpo.objectives.comparison import Profile, compare


def show_aliases(as_json: bool) -> None:
    """The names that hosts use, and ours."""
    if as_json:
        write_json([{**alias._asdict(), "parameters": dict(alias.parameters)} for alias in ALIASES])
        return
    table = Table("host", "its setting", "here", box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for alias in ALIASES:
        table.add_row(alias.host, alias.setting, alias.here)
    wide_console().print(table)


def show_comparison(objectives: Mapping[str, Objective], log: Path | None, as_json: bool) -> None:
    """A column an objective; with ``log``, also the share of its gradient mass that each changes.

    Raises:
        ConfigError: parameters were changed, with ``log``, which is evaluated at the defaults.
    """
    profiles = compare(objectives)
    changed = {} if log is None else changed_shares(objectives, log)
    if as_json:
        rows = {label: {**asdict(found), "changed": changed.get(label)} for label, found in profiles.items()}
        write_json({label: without_infinity(row) for label, row in rows.items()})
        return
    table = Table("", *profiles, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name, cells in lines(profiles, changed).items():
        table.add_row(name, *cells)
    wide_console().print(table)


def lines(profiles: Mapping[str, Profile], changed: Mapping[str, float | None]) -> dict[str, list[str]]:
    """Line → a cell an objective."""
    found = list(profiles.values())
    table: dict[str, list[str]] = {}
    for column in found[0].weights:
        table[f"w at {column}"] = [cell(one.weights[column]) for one in found]
    for column in found[0].limits:
        table[f"w as {column}"] = [cell(one.limits[column]) for one in found]
    if changed:
        table["gradient mass changed in the log"] = [
            "–" if (share := changed[label]) is None else f"{share:.3%}" for label in profiles
        ]
    table["decides by"] = [one.decides for one in found]
    table["needs"] = [", ".join(one.needs) or "–" for one in found]
    table["products with the LM head"] = [str(one.head_products or "whole logits") for one in found]
    table["scales with Â"] = ["yes" if one.homogeneous else "no" for one in found]
    return table


def cell(value: float | None) -> str:
    """A weight; – where a token alone has none."""
    return "–" if value is None else f"{value:.3g}".replace("inf", "∞")


def without_infinity(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinities: they become the words that Python reads back."""
    words = {float("inf"): "inf", float("-inf"): "-inf"}
    return {**row, "limits": {key: words.get(value, value) for key, value in row["limits"].items()}}


def changed_shares(objectives: Mapping[str, Objective], log: Path) -> dict[str, float | None]:
    """Label → Σ |Â r| |w − 1| / Σ |Â r| over the tokens of ``log``; None where its tokens cannot be evaluated."""
    from drpo.cli.inspection import Question

    for label, objective in objectives.items():
        if label != objective.name:
            raise ConfigError(f"--log evaluates objectives at their defaults, got {label}. Leave its parameters out.")
    found = Question.of(None, ",".join(objectives), [], None, None).ask([log])
    shares = {verdict.objective: verdict.changed for verdict in found.verdicts}
    return {label: shares.get(label) for label in objectives}
