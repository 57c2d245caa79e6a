"""The tables and the figure of docs/long-tail.md, from results/long-tail/ (`make long-tail`)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from drpo.files import read_json
from examples.long_tail import COMMAND, records
from examples.long_tail.analysis import Evaluated, evaluate, verdicts
from examples.long_tail.figure import Panel, long_tail_figure
from examples.long_tail.study import ARMS, PLAN, SETTINGS
from examples.long_tail.tables import arms_table, grouped, scale, sentences, verdicts_table
from tools import RESULTS

FOLDER = RESULTS / "long-tail"
TITLES = {
    "tail-linear": "10,000 actions, linear",
    "tail-mlp": "10,000 actions, MLP",
    "short-linear": "10 actions, linear",
    "short-mlp": "10 actions, MLP",
}


@cache
def load() -> dict[str, Evaluated]:
    """Setting → its runs."""
    return {name: evaluate(runs(name), PLAN) for name in SETTINGS}


def runs(name: str) -> list[records.Run]:
    """All runs of a setting."""
    return records.read(FOLDER / f"{name}.csv")


def record(name: str) -> dict[str, Any]:
    """What a setting's runs were made with."""
    return read_json(FOLDER / f"{name}.json")


def made() -> str:
    """How many runs, when and on what."""
    counts = {name: runs(name) for name in SETTINGS}
    seconds = sum(run.seconds for own in counts.values() for run in own)
    crashed = sum(bool(run.outcome.reason) for own in counts.values() for run in own)
    machines = [record(name)["machine"] for name in SETTINGS]
    parts = [", ".join(sorted({machine[key] for machine in machines})) for key in ("date", "cpu")]
    torch = ", ".join(sorted({machine["packages"]["torch"] for machine in machines}))
    total = sum(map(len, counts.values()))
    return (
        f"`{COMMAND}`: {total:,} runs, {crashed} of them crashed; {parts[0]}, {parts[1]}, "
        f"one thread a run, torch {torch}; {seconds / 60:.0f} minutes of runs one after "
        "another, on a machine that did other work as well."
    )


def block() -> str:
    """Every setting: verdicts and arms."""
    settings = load()
    own, shared = grouped(verdicts(settings)), grouped(verdicts(settings, shared=True))
    lines = [made(), ""]
    for name, found in settings.items():
        lines += [
            f"### {TITLES[name]}",
            "",
            *sentences(own[name]),
            "",
            f"μ earns {scale(found)}. The shared rate is {found.rate:g}.",
            "",
            *arms_table(found),
            "",
            *verdicts_table(own[name], shared[name]),
            "",
        ]
    return "\n".join(lines).rstrip()


def panel(found: Evaluated) -> Panel:
    """A setting's column of the figure."""
    schedule = PLAN.schedule
    updates = np.linspace(0, schedule.updates, schedule.measurements + 1)
    curves = {name: np.array([run.outcome.curve for run in found.runs[cell]]) for name, cell in found.best.items()}
    thresholds = {}
    for name, arm in ARMS.items():
        values = [
            max(score for cell, score in found.tuned.items() if (cell.arm, cell.threshold) == (name, bound))
            for bound in arm.thresholds
        ]
        if len(values) > 1:
            thresholds[name] = np.array(arm.thresholds), np.array(values)
    return Panel(updates, curves, thresholds)


def figure() -> Figure:
    """Learning curves and thresholds, a column a setting."""
    return long_tail_figure({TITLES[name]: panel(found) for name, found in load().items()})
