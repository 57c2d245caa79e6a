"""The tables of docs/integrations/README.md, from results/parity/ (`make parity`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from drpo.files import read_json
from drpo.integrations.hosts import HOSTS
from drpo.integrations.parity import TOLERANCE
from tools import RESULTS


def load() -> list[dict[str, Any]]:
    """What was measured, host by host; of a host with several releases the pinned one first, then newest to oldest."""
    folder = RESULTS / "parity"
    return [
        read_json(file)
        for host in HOSTS.values()
        for file in (
            folder / f"{host.key}.json",
            *sorted(folder.glob(f"{host.key}-*.json"), key=release, reverse=True),
        )
    ]


def release(file: Path) -> list[int]:
    """The numbers of the version in a record's name."""
    return [int(number) for number in re.findall(r"\d+", file.stem)]


def figure(value: float) -> str:
    """One digit; 0 where not a bit differs."""
    return f"{value:.0e}" if value else "0"


def worst(rows: list[dict[str, Any]], column: str) -> str:
    """The largest figure of ``column``."""
    return figure(max(row[column] for row in rows))


def tables() -> str:
    """One line a host, then one line an objective."""
    hosts = load()
    lines = [
        "| host | numbers | objectives × aggregations | gradient | 2 and 4 micro-batches | other padding | allowed | "
        "measured |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for host in hosts:
        rows = host["rows"]
        modes = list(dict.fromkeys(row["mode"] for row in rows))
        lines.append(
            f"| {host['host']} {host['version']} | {host['dtype']} | {len(rows) // len(modes)} × {', '.join(modes)} | "
            f"{worst(rows, 'gradient')} | {worst(rows, 'micro_batches')} | {worst(rows, 'padding')} | "
            f"{TOLERANCE[getattr(torch, host['dtype'])]:.0e} | {host['date']} |"
        )
    titles = list(dict.fromkeys(host["host"] for host in hosts))
    names = list(dict.fromkeys(row["objective"] for host in hosts for row in host["rows"]))
    lines += [
        "",
        "The worst of each objective over releases, aggregations, micro-batches and paddings (– : the host cannot feed "
        "it, or does not weigh it rightly, and refuses it):",
        "",
        "| objective | " + " | ".join(titles) + " |",
        "| --- |" + " --- |" * len(titles),
    ]
    for name in names:
        cells = []
        for title in titles:
            rows = [row for host in hosts if host["host"] == title for row in host["rows"] if row["objective"] == name]
            figures = [row[column] for row in rows for column in ("gradient", "micro_batches", "padding")]
            cells.append(figure(max(figures)) if rows else "–")
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)
