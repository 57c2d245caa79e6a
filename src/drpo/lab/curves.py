"""curves.csv: what every run of a study was over its training.

A line a run and step: ``schema``, the run (``phase``, ``setting``, ``arm``, ``attempt``, ``seed``), ``step``, and a
column a curve (:data:`CURVES`), empty where the run has no value. Where only the mean and the range over seeds are
known, ``seed`` is ``mean``, ``low`` or ``high``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from drpo.errors import DataError
from drpo.lab.csv_tables import csv_text, read_table
from drpo.lab.metrics import COURSES

Row = dict[str, Any]

CURVES = ("accuracy", *COURSES)
PLACE = ("phase", "setting", "arm", "attempt", "seed")
#: In the place of a seed: what is known of all of them.
SUMMARIES = ("mean", "low", "high")


class CurvePoint(NamedTuple):
    """One step of a curve over seeds."""

    step: int
    mean: float
    low: float
    high: float


class Curve(NamedTuple):
    """Whose curve it is."""

    phase: str
    setting: str
    arm: str
    name: str


def curves_text(rows: Iterable[Row]) -> str:
    """curves.csv of runs with their ``curves``: name → (step, value)."""
    lines = []
    for row in rows:
        steps: dict[int, Row] = {}
        for name in CURVES:
            for step, value in row["curves"][name]:
                steps.setdefault(step, {})[name] = value
        place = {key: row[key] for key in PLACE}
        lines += [place | {"step": step, **values} for step, values in sorted(steps.items())]
    return csv_text("curves", (*PLACE, "step", *CURVES), lines)


def row_place(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Which run a row is of."""
    return tuple(str(row[key]) for key in PLACE)


def run_curves(file: Path) -> dict[tuple[str, ...], dict[str, list[tuple[int, float]]]]:
    """The curves of each run by its :func:`row_place`, as :func:`curves_text` took them; a run without a line has
    empty ones.

    Raises:
        DataError: a line is damaged. SchemaError: a newer version wrote the file.
    """
    found: dict[tuple[str, ...], dict[str, list[tuple[int, float]]]] = defaultdict(lambda: {key: [] for key in CURVES})
    for row in read_table("curves", file, text=PLACE) if file.is_file() else ():
        for name in CURVES:
            if (value := row.get(name)) is not None:
                found[row_place(row)][name].append((row["step"], value))
    return found


def read_curves(file: Path) -> dict[Curve, list[CurvePoint]]:
    """Mean and range over seeds of every curve but those of the tuning, by step; empty where there is no file.

    Raises:
        DataError: a line is damaged. SchemaError: a newer version wrote the file.
    """
    if not file.is_file():
        return {}
    found: dict[Curve, dict[int, Row]] = {}
    for number, row in enumerate(read_table("curves", file, text=PLACE), start=2):
        if row["phase"] == "tuning":
            continue
        for name in CURVES:
            if (value := row.get(name)) is not None:
                if not isinstance(value, int | float) or not isinstance(row["step"], int):
                    raise DataError(f"{file}, row {number}: {name} and step must be numbers.")
                curve = Curve(row["phase"], row["setting"], row["arm"], name)
                found.setdefault(curve, {}).setdefault(row["step"], {})[row["seed"]] = value
    return {
        curve: [_point(step, values, file) for step, values in sorted(steps.items())] for curve, steps in found.items()
    }


def _point(step: int, values: Mapping[str, float], file: Path) -> CurvePoint:
    if not values.keys() & set(SUMMARIES):
        return CurvePoint(step, math.fsum(values.values()) / len(values), min(values.values()), max(values.values()))
    if values.keys() != set(SUMMARIES):
        raise DataError(f"{file}: step {step} needs {', '.join(SUMMARIES)} and no seed beside them.")
    return CurvePoint(step, *(values[name] for name in SUMMARIES))
