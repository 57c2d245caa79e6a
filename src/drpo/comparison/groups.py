"""Runs of one configuration over seeds, and what tells the configurations apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo.comparison.runs import ComparedRun

#: Settings that say where a run's figures go, and not what they are.
ELSEWHERE = ("trackers", "project", "checkpoint_every", "checkpoint_keep", "log_tokens", "log_tokens_share", "threads")
#: A label names the settings that differ, up to so many.
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in their seed alone."""

    label: str
    objective: str
    runs: Sequence[ComparedRun]

    @property
    def ended(self) -> Sequence[ComparedRun]:
        """Its finished runs; all where none has finished: what an unfinished one has reached is not its end."""
        return [run for run in self.runs if run.status == "finished"] or self.runs


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Dotted key → its value in each of ``runs``, for keys that differ; the seed is not among them. None: not set."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key) for run in runs] for key in keys if key != "seed" and not _elsewhere(key)}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def told_settings(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """As :func:`differing_settings`; where the objectives differ they are told whole, each with its parameters."""
    differing = differing_settings(runs)
    if "objective.name" not in differing:
        return differing
    rest = {key: values for key, values in differing.items() if not key.startswith("objective.")}
    return {"objective": [_call(run) for run in runs]} | rest


def _call(run: ComparedRun) -> str:
    """``drpo(delta=0.15)``."""
    parameters = {
        key.removeprefix("objective."): value
        for key, value in run.settings.items()
        if key.startswith("objective.") and key != "objective.name"
    }
    values = ", ".join(f"{key}={_short(value)}" for key, value in parameters.items())
    return f"{_objective(run)}({values})"


def _elsewhere(key: str) -> bool:
    return key.split(".")[0] in ELSEWHERE


def group_runs(runs: Sequence[ComparedRun]) -> list[Group]:
    """The runs by configuration, in the order of their first; runs that repeat a seed stay alone."""
    differing = differing_settings(runs)
    by_settings: dict[tuple[Any, ...], list[ComparedRun]] = {}
    for index, run in enumerate(runs):
        by_settings.setdefault(tuple(values[index] for values in differing.values()), []).append(run)
    groups = []
    for members in by_settings.values():
        repeated = len({run.seed for run in members}) < len(members)
        label = _label(members[0], differing)
        if repeated:
            groups += [Group(f"{label} ({run.name})" if label else run.name, _objective(run), [run]) for run in members]
        else:
            groups.append(Group(label or members[0].name, _objective(members[0]), members))
    return _unique(groups)


def _label(run: ComparedRun, differing: Mapping[str, Sequence[Any]]) -> str:
    """The settings in which it differs, the objective without its key; empty where they are too many."""
    own = [key for key in differing if key != "objective.name" and not key.startswith("objective.modifiers")]
    own = [key for key in own if run.settings.get(key) is not None]
    others = [key for key in own if not key.startswith("objective.")]
    parameters = [key for key in own if key.startswith("objective.")]
    name = _objective(run)
    # Other objectives have other parameters: they tell apart only where one objective has several values.
    told = [key for key in parameters if "objective.name" not in differing or _varies(key, name, differing)]
    parts = [f"{key.removeprefix('objective.')}={_short(run.settings[key])}" for key in told]
    parts += [f"{key}={_short(run.settings[key])}" for key in others]
    if len(parts) > MOST_NAMED:
        return ""
    return ", ".join(([name] if "objective.name" in differing or told else []) + parts)


def _varies(key: str, objective: str, differing: Mapping[str, Sequence[Any]]) -> bool:
    """Whether runs with the ``objective`` have more than one value of ``key``."""
    names = differing["objective.name"]
    values = [value for value, name in zip(differing[key], names, strict=True) if name == objective]
    return any(value != values[0] for value in values)


def _objective(run: ComparedRun) -> str:
    name = run.settings.get("objective.name", run.settings.get("objective"))
    return str(name) if name is not None else "unnamed"


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _unique(groups: list[Group]) -> list[Group]:
    """Groups whose label another has, too, get the name of their first run."""
    labels = [group.label for group in groups]
    return [
        Group(f"{group.label} ({group.runs[0].name})", group.objective, group.runs)
        if labels.count(group.label) > 1
        else group
        for group in groups
    ]
