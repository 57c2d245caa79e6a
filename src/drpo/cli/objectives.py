"""`drpo objectives`."""

from __future__ import annotations

import inspect

from rich.console import Console
from rich.table import Table

from drpo.errors import ConfigError, suggest
from drpo.objectives import OBJECTIVES


def run_objectives(name: str | None) -> None:
    """List every objective, or explain one."""
    console = Console()
    if name is not None:
        if name not in OBJECTIVES:
            raise ConfigError(f"unknown objective {name!r}.{suggest(name, OBJECTIVES)}")
        console.print(f"{name}({_parameters(name)})\n", highlight=False, markup=False)
        console.print(inspect.getdoc(OBJECTIVES[name]), highlight=False, markup=False, soft_wrap=True)
        return
    table = Table("objective", "parameters = defaults", "what it does", box=None, pad_edge=False)
    for key, cls in OBJECTIVES.items():
        table.add_row(key, _parameters(key), (inspect.getdoc(cls) or "").split("\n")[0])
    console.print(table)
    console.print("\n`drpo objectives NAME` gives equation, ranges and source.", highlight=False)


def _parameters(name: str) -> str:
    return ", ".join(f"{key}={value}" for key, value in OBJECTIVES[name].parameters().items())
