"""The tables of docs/recipes.md, from the recipe files: every value, and why it is what it is."""

from __future__ import annotations

import yaml

from drpo.host_runs.catalog import HOSTS
from drpo.host_runs.command import hydra_value
from drpo.recipe_files import ROOT

#: Long beginnings of verl's keys, which the tables leave away.
SHORT = {"+": "", "actor_rollout_ref.": ""}


def public() -> str:
    """The values that come from public sources."""
    return table("public")


def assumed() -> str:
    """The values that we chose."""
    return table("assumed")


def table(origin: str) -> str:
    """A row for every block of settings of this origin, ``public`` or ``assumed``."""
    rows = [f"| recipe | values | {'from' if origin == 'public' else 'why'} |", "|---|---|---|"]
    for host in HOSTS:
        for file in sorted((ROOT / host).glob("*.yaml"), key=lambda file: (file.stem != "_paper", file.stem)):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            name = {"_paper": "all six", "_objectives": "all six"}.get(file.stem, f"{host}/{file.stem}")
            objectives = content if file.stem == "_objectives" else content.get("objectives", {})
            for block in content.get("settings", []) if file.stem != "_objectives" else []:
                if origin in block:
                    rows.append(f"| {name} | {_values(block['values'])} | {block[origin]} |")
            for objective, entry in objectives.items():
                if origin in entry:
                    rows.append(
                        f"| {name} | {_values({'objective': objective, **entry['parameters']})} | {entry[origin]} |"
                    )
    return "\n".join(rows)


def _values(values: dict[str, object]) -> str:
    parts = []
    for key, value in values.items():
        for long, short in SHORT.items():
            key = short + key.removeprefix(long) if key.startswith(long) else key
        parts.append(f"`{key}={hydra_value(value)}`")
    return " ".join(parts)
