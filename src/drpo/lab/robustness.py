"""How much tuning each arm of a study needs, from its rows: basin widths over draws, sensitivity over settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo.lab.results import Row
from drpo.lab.statistics import basin_width, normal_range, rate, reference_gain, sensitivity
from drpo.lab.statistics.robustness import KEPT
from drpo.lab.study import Study

Lines = list[list[Any]]


def basins(study: Study, rows: Sequence[Row]) -> Lines:
    """A line for each setting and arm of a study with draws: the share of its blocks that keep 80 % of the reference
    gain, and the share that collapsed, each with its exact interval. A setting in which nothing gains has no basin."""
    lines: Lines = []
    for setting in study.settings if study.draws else ():
        mine = [row for row in rows if row["setting"] == setting and _ended(row)]
        if not mine:
            continue
        before = float(np.mean([row["accuracy_before"] for row in mine]))
        reference = reference_gain([row["final_accuracy"] - before for row in mine])
        for arm in study.arms:
            own = [row for row in mine if row["arm"] == arm]
            if not own:
                continue
            gains = [row["final_accuracy"] - before for row in own]
            wide = _share(basin_width(gains, reference)) if reference > 0 else None
            fallen = _share(rate(sum(bool(row["collapsed"]) for row in own), len(own)))
            lines.append([setting, arm, len(own), float(np.mean(gains)), KEPT * reference, wide, fallen])
    return lines


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


def _ended(row: Row) -> bool:
    return (
        row["phase"] == "shared" and row["status"] in ("finished", "failed") and row.get("final_accuracy") is not None
    )


def _share(found: Any) -> str:
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"
