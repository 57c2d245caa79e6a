"""The files of results: for each setting a table of runs, and what it was made with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drpo.errors import CheckpointError
from drpo.files import replace_text
from drpo.schema import renamed
from examples.long_tail.study import ARMS, Cell, Plan, Setting
from examples.long_tail.training import FIGURES, Outcome

#: The final value is the mean of this many measurements.
LAST = 3
COLUMNS: list[str] = [
    "arm",
    "threshold",
    "learning_rate",
    "seed",
    "start",
    "final",
    "best",
    "drawdown",
    *FIGURES,
    "seconds",
    "reason",
    "curve",
]


@dataclass(frozen=True)
class Run:
    """A finished run: what it was, and what it came to."""

    cell: Cell
    seed: int
    seconds: float
    outcome: Outcome

    @property
    def start(self) -> float:
        """The value of the logging policy."""
        return self.outcome.curve[0]

    @property
    def final(self) -> float:
        return float(np.mean(self.outcome.curve[-LAST:]))

    @property
    def best(self) -> float:
        return max(self.outcome.curve)

    @property
    def drawdown(self) -> float:
        """The largest fall from what had been reached."""
        return float((np.maximum.accumulate(self.outcome.curve) - self.outcome.curve).max())

    def as_row(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in ("start", "final", "best", "drawdown")}
        numbers |= {**self.outcome.figures, "seconds": self.seconds}
        return {
            "arm": self.cell.arm,
            "threshold": self.cell.threshold,
            "learning_rate": self.cell.learning_rate,
            "seed": self.seed,
            **{name: f"{value:.6g}" for name, value in numbers.items()},
            "reason": self.outcome.reason,
            "curve": " ".join(f"{value:.6f}" for value in self.outcome.curve),
        }

    @classmethod
    def from_row(cls, row: dict[str, str]) -> Run:
        cell = Cell(row["arm"], float(row["threshold"]), float(row["learning_rate"]))
        figures = {name: float(row[name]) for name in FIGURES}
        outcome = Outcome([float(value) for value in row["curve"].split()], figures, row["reason"])
        return cls(cell, int(row["seed"]), float(row["seconds"]), outcome)


def read(file: Path) -> list[Run]:
    """The finished runs of a table; a last line that was cut off while it was written is none."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    whole = io.StringIO(text[: text.rfind("\n") + 1])
    return [Run.from_row(renamed(row)) for row in csv.DictReader(whole) if None not in row.values()]


def rewrite(file: Path, runs: Iterable[Run]) -> None:
    """The table of ``runs`` alone, so that appending goes on after a whole line."""
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(run.as_row() for run in runs)
    replace_text(file, lines.getvalue())


def append(file: Path, run: Run) -> None:
    with file.open("a", encoding="utf-8", newline="") as lines:
        csv.DictWriter(lines, COLUMNS, lineterminator="\n").writerow(run.as_row())


def description(setting: Setting, plan: Plan) -> dict[str, Any]:
    """All that decides the runs of a setting, as JSON holds it."""
    return json.loads(
        json.dumps(
            {
                "setting": asdict(setting),
                "plan": asdict(plan),
                "thresholds": {name: arm.thresholds for name, arm in ARMS.items()},
            }
        )
    )


def check_same(file: Path, described: dict[str, Any]) -> None:
    """Raise a CheckpointError if ``file`` says that other runs than those ``described`` stand beside it."""
    if not file.is_file():
        return
    there = json.loads(file.read_text(encoding="utf-8"))
    differing = [name for name in described if there.get(name) != described[name]]
    if differing:
        raise CheckpointError(
            f"{file} is of another study: {', '.join(differing)} differ. Choose another --out, or "
            "remove it with its table to start anew."
        )


def seeds_of(runs: Iterable[Run], cell: Cell) -> Iterator[Run]:
    """The runs of a cell, in order of their seeds."""
    yield from sorted((run for run in runs if run.cell == cell), key=lambda run: run.seed)
