"""The tables of docs/integrations/README.md, from results/parity/ (`make parity`)."""

from __future__ import annotations

from typing import Any

import torch

from drpo.files import read_json
from drpo.integrations.hosts import HOSTS
from drpo.integrations.parity import TOLERANCE
from tools import RESULTS


def load() -> list[dict[str, Any]]:
    """What was measured, host by host."""
    return [read_json(RESULTS / "parity" / f"{host.key}.json") for host in HOSTS.values()]


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
    names = list(dict.fromkeys(row["objective"] for host in hosts for row in host["rows"]))
    lines += [
        "",
        "The worst of each objective over aggregations, micro-batches and paddings (– : the host cannot feed "
        "it, or does not weigh it rightly, and refuses it):",
        "",
        "| objective | " + " | ".join(host["host"] for host in hosts) + " |",
        "| --- |" + " --- |" * len(hosts),
    ]
    for name in names:
        cells = []
        for host in hosts:
            rows = [row for row in host["rows"] if row["objective"] == name]
            figures = [row[column] for row in rows for column in ("gradient", "micro_batches", "padding")]
            cells.append(figure(max(figures)) if rows else "–")
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)
