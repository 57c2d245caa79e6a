"""Run directories as rows: every planned run is one, finished, broken or missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drpo.collapse import LAST, LEFT
from drpo.files import replace_text
from drpo.lab.csv_tables import csv_text, read_table
from drpo.lab.directory import State, StudyDirectory
from drpo.lab.metrics import (
    COURSES,
    accuracy_curve,
    accuracy_metrics,
    by_step,
    measured_seconds,
    reward_metrics,
    tokens_to,
    update_metrics,
)
from drpo.lab.plan import Run
from drpo.lab.statistics import mean, rate
from drpo.lab.study import Study
from drpo.run_directory import RunDirectory
from drpo.schema import renamed

Row = dict[str, Any]

#: Columns that hold no figures.
TEXT = frozenset(
    {
        "phase",
        "setting",
        "arm",
        "attempt",
        "drawn",
        "status",
        "reason",
        "machine_device",
        "cpu",
        "torch",
        "code",
        "command",
    }
)


def read_rows(directory: StudyDirectory, runs: Sequence[Run], study: Study) -> list[Row]:
    """A row for each of ``runs``, in order."""
    states, reused = directory.states(list(runs)), directory.reused()
    return [
        reused[str(run.path)] | _place(run, directory)
        if str(run.path) in reused
        else read_row(directory, run, states[run], study)
        for run in runs
    ]


def _place(run: Run, directory: StudyDirectory) -> Row:
    """Which run a row is of."""
    return {
        "phase": run.phase,
        "setting": run.setting,
        "arm": run.arm,
        "attempt": run.attempt,
        "drawn": run.drawn,
        "seed": run.seed,
        "command": run.command(directory.path),
    }


def read_row(directory: StudyDirectory, run: Run, state: State, study: Study) -> Row:
    """What a run is, how it stands, and what it came to; None for figures that it does not have.

    An interrupted run has the figures of the part that it ran.
    """
    records = RunDirectory(directory.path / run.path)
    updates, evaluations = records.read_measured()
    curve = accuracy_curve(evaluations, run.evaluations, failed=state.status == "failed" and bool(evaluations))
    target = (
        {} if study.target_accuracy is None else {"tokens_to_target": tokens_to(study.target_accuracy, curve, updates)}
    )
    accuracy = accuracy_metrics(curve, evaluations, last=LAST if run.config.eval_final is None else 1)
    reward = reward_metrics(updates, run.config.steps, failed=state.status == "failed")
    fell = reward.pop("reward_collapsed", False)
    if accuracy and run.config.eval_final is not None:  # too few evaluations to see a fall between them
        ended_low = accuracy["final_accuracy"] <= LEFT * accuracy["best_accuracy"]
        accuracy["collapsed"] = accuracy["collapsed"] or fell or ended_low
    manifest = records.read_manifest()
    place = _place(run, directory)
    command = place.pop("command")
    return {
        **place,
        "status": state.status,
        "reason": state.reason,
        "steps": updates[-1]["step"] if updates else 0,
        **accuracy,
        **reward,
        **target,
        **update_metrics(updates),
        "heldout_problems": min((record["examples"] for record in evaluations if "examples" in record), default=None),
        "seconds": measured_seconds(updates, evaluations),
        "machine_device": manifest.get("device"),
        "cpu": manifest.get("cpu"),
        "torch": manifest.get("versions", {}).get("torch"),
        "code": manifest.get("code"),
        "command": command,
        "curves": {"accuracy": curve, **{name: by_step(name, updates) for name in COURSES}},
    }


def write_csv(directory: StudyDirectory, rows: Sequence[Row]) -> None:
    """Write results.csv: a line a run, a column a figure; an empty cell is a figure that does not exist."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "curves"))
    replace_text(directory.path / "results.csv", csv_text("results", columns, rows))


def read_csv(file: Path) -> list[Row]:
    """The rows that :func:`write_csv` wrote, without their curves; a float comes back to its last bit. Columns of older
    versions have their present names.

    Raises:
        DataError: a line is damaged. SchemaError: a newer version wrote the file.
    """
    return [renamed(row) for row in read_table("results", file, TEXT)]


def summary_rows(study: Study, rows: Sequence[Row], phase: str) -> list[Row]:
    """A row for each setting and arm: how its runs stand, and what they come to over the seeds.

    Figures are of runs that ended, whether well or not; the interval is Student's of the mean; ``least`` and
    ``most`` are the range over seeds.
    """
    found = []
    for setting in study.settings:
        for arm in study.arms:
            mine = [row for row in rows if (row["phase"], row["setting"], row["arm"]) == (phase, setting, arm)]
            ended = [
                row for row in mine if row.get("final_accuracy") is not None and row["status"] in ("finished", "failed")
            ]
            scores = [row["final_accuracy"] for row in ended]
            several = mean(np.array(scores)) if len(scores) > 1 else None
            collapsed = sum(row["collapsed"] for row in ended)
            found.append(
                {
                    "setting": setting,
                    "arm": arm,
                    "runs": len(mine),
                    **{status: sum(row["status"] == status for row in mine) for status in ("finished", "failed")},
                    "final_accuracy": several.value if several else (scores[0] if scores else None),
                    "low": several.low if several else None,
                    "high": several.high if several else None,
                    "least": min(scores, default=None),
                    "most": max(scores, default=None),
                    "spread": _spread(scores),
                    **{
                        name: _mean(row.get(name) for row in ended)
                        for name in (
                            "area",
                            "best_accuracy",
                            "drawdown",
                            "shift",
                            "shift_p99",
                            "beyond_delta_positive",
                            "beyond_delta_negative",
                            "corrective_share",
                            "masked_share",
                            "mismatch",
                            "entropy",
                        )
                    },
                    "collapsed": collapsed,
                    "collapse_interval": rate(collapsed, len(ended)) if ended else None,
                }
            )
    return found


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _spread(scores: Sequence[float]) -> float | None:
    """The standard deviation over seeds."""
    if len(scores) < 2:
        return None
    mean = math.fsum(scores) / len(scores)
    return math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
