"""How much tuning each arm of a study needs, from its rows: how it ends along what is drawn, basin widths over draws,
sensitivity over settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypedDict

import numpy as np

from drpo.lab.draws import LogRange, drawn_number
from drpo.lab.metrics import METRICS
from drpo.lab.results import Row
from drpo.lab.statistics import Estimate, basin_width, normal_range, rate, reference_gain, sensitivity
from drpo.lab.statistics.robustness import KEPT
from drpo.lab.study import Study

Lines = list[list[Any]]
#: Most parts that a drawn range is cut into for means, and the fewest blocks of one.
MOST_PARTS, BLOCKS_A_PART = 5, 4


class Basin(NamedTuple):
    """Over the blocks of one setting and arm: gains are of final accuracy over that before training."""

    setting: str
    arm: str
    blocks: int
    gain: float
    #: The least gain of a block in the basin.
    kept: float
    #: The share of blocks that gain at least that; None if no arm gains anything.
    width: Estimate | None
    collapsed: Estimate


class Course(NamedTuple):
    """An arm along one drawn axis, by rising value: means over groups of blocks, and every block."""

    means: list[tuple[float, float]]
    blocks: list[tuple[float, float]]


class Area(TypedDict):
    """What the blocks of one setting say: ``label`` is the name of the study's metric."""

    label: str
    along: dict[str, dict[str, Course]]
    basins: list[Basin]


def areas(study: Study, rows: Sequence[Row]) -> dict[str, Area]:
    """Setting → what its blocks say, for each setting of a study with draws in which a run has ended."""
    wide, label = basins(study, rows), METRICS[study.metric].label
    found = {
        setting: Area(
            label=label,
            along=along_draws(study, rows, setting),
            basins=[one for one in wide if one.setting == setting],
        )
        for setting in (study.settings if study.draws else ())
    }
    return {setting: area for setting, area in found.items() if area["along"] or area["basins"]}


def basins(study: Study, rows: Sequence[Row]) -> list[Basin]:
    """For each setting and arm of a study with draws: the share of its blocks that keep 80 % of the reference gain, and
    the share that collapsed, each with its exact interval. A setting in which nothing gains has no basin."""
    found = []
    for setting in study.settings if study.draws else ():
        mine = [row for row in rows if row["setting"] == setting and _ended(row, "final_accuracy")]
        if not mine:
            continue
        before = float(np.mean([row["accuracy_before"] for row in mine]))
        reference = reference_gain([row["final_accuracy"] - before for row in mine])
        for arm in study.arms:
            own = [row for row in mine if row["arm"] == arm]
            if not own:
                continue
            gains = [row["final_accuracy"] - before for row in own]
            width = basin_width(gains, reference) if reference > 0 else None
            fallen = rate(sum(bool(row["collapsed"]) for row in own), len(own))
            found.append(Basin(setting, arm, len(own), float(np.mean(gains)), KEPT * reference, width, fallen))
    return found


def along_draws(study: Study, rows: Sequence[Row], setting: str) -> dict[str, dict[str, Course]]:
    """Axis → arm → the study's metric along that axis, for each drawn axis of numbers.

    A range is cut into parts of equal width in its logarithm, MOST_PARTS or as many as hold BLOCKS_A_PART blocks each;
    a mean lies at the middle of its blocks' values. A list has a mean at each value. The other axes vary within each
    mean, in the same way for all arms.
    """
    mine = [row for row in rows if row["setting"] == setting and _ended(row, study.metric)]
    return {
        name: {
            arm: _course(
                axis, [(drawn_number(row["drawn"], name), row[study.metric]) for row in mine if row["arm"] == arm]
            )
            for arm in study.arms
        }
        for name, axis in study.draws.items()
        if mine and (isinstance(axis, LogRange) or all(type(value) in (int, float) for value in axis))
    }


def _course(axis: LogRange | Sequence[Any], blocks: list[tuple[float, float]]) -> Course:
    blocks = sorted(blocks)
    parts = max(1, min(MOST_PARTS, len(blocks) // BLOCKS_A_PART))

    def part(block: tuple[float, float]) -> float:
        return min(parts - 1, int(axis.share(block[0]) * parts)) if isinstance(axis, LogRange) else block[0]

    groups = [list(group) for _, group in groupby(blocks, key=part)]
    return Course([(_middle(group), math.fsum(value for _, value in group) / len(group)) for group in groups], blocks)


def _middle(group: Sequence[tuple[float, float]]) -> float:
    """The geometric mean of their values on the axis; that value itself where they share it."""
    values = [at for at, _ in group]
    return values[0] if values[0] == values[-1] else math.exp(math.fsum(map(math.log, values)) / len(values))


def sensitivities(study: Study, rows: Sequence[Row]) -> Lines:
    """A line for each arm of a study that tunes the same tries in two settings or more: Adkins' Φ, by the tuning's
    scores normalized in each setting; none while runs are missing."""
    tuned = [row for row in rows if row["phase"] == "tuning" and row["status"] in ("finished", "failed")]
    first = [row for row in tuned if study.tuning and row["seed"] in study.tuning.seeds]
    if len(study.settings) < 2 or not first:
        return []
    ranges = {
        setting: normal_range([row[study.metric] for row in first if row["setting"] == setting and _scored(row, study)])
        for setting in study.settings
        if any(row["setting"] == setting and _scored(row, study) for row in first)
    }
    lines: Lines = []
    for arm in study.arms:
        attempts = list(dict.fromkeys(row["attempt"] for row in first if row["arm"] == arm))
        table = [[_normalized(study, first, (setting, arm, name), ranges) for name in attempts] for setting in ranges]
        if len(table) == len(study.settings) and all(value is not None for line in table for value in line):
            lines.append([arm, len(attempts), len(table), sensitivity(np.array(table, dtype=np.float64))])
    return lines


def _normalized(
    study: Study, rows: Sequence[Row], place: tuple[str, str, str], ranges: dict[str, tuple[float, float]]
) -> float | None:
    """The mean score of a try in a setting, 0 and 1 at the ends of the setting's range."""
    low, high = ranges[place[0]]
    scores = [
        row[study.metric]
        for row in rows
        if (row["setting"], row["arm"], row["attempt"]) == place and _scored(row, study)
    ]
    return (float(np.mean(scores)) - low) / (high - low) if scores and high > low else None


def _scored(row: Row, study: Study) -> bool:
    return row.get(study.metric) is not None


def _ended(row: Row, metric: str) -> bool:
    return row["phase"] == "shared" and row["status"] in ("finished", "failed") and row.get(metric) is not None
