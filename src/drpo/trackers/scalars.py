"""Records of metrics.jsonl as the flat figures that trackers show (docs/tracking.md lists them)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

#: What says which record it is, and what is no scalar.
_LEFT_OUT = {"kind", "update", "histograms"}


def updates_done(record: Mapping[str, Any], updates_per_step: int) -> int:
    """The step that trackers show a record at: how many optimizer updates the weights had then seen at most."""
    if record["kind"] == "evaluation":
        return record["step"] * updates_per_step
    return (record["step"] - 1) * updates_per_step + record["update"] + 1


def flat_scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The record's finite numbers; a figure that does not exist (NaN, null) is left out.

    An evaluation's are under ``evaluation/``; an update's own under ``train/``, its nested ones under their group.
    """
    figures = {key: value for key, value in record.items() if key not in _LEFT_OUT}
    if record["kind"] == "evaluation":
        return dict(_leaves(figures, "evaluation/"))
    groups = {key: value for key, value in figures.items() if isinstance(value, Mapping)}
    own = {key: value for key, value in figures.items() if key not in groups}
    return dict([*_leaves(own, "train/"), *_leaves(groups, "")])


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}{key}", float(value)
