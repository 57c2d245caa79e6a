"""Runs that another study already did: the same configuration on the same kind of machine, hence the same run.

They are copied where their directories are there. Where a study's tables are all that is left of it (results.csv and
curves.csv, as they are committed), their rows are taken over: reused.jsonl of the study that goes on holds them, a line
a run, each with ``run`` (its path) and ``row``.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from drpo.code_version import training_code
from drpo.cpus import cpu_model
from drpo.errors import CheckpointError
from drpo.lab.curves import row_place, run_curves
from drpo.lab.directory import StudyDirectory, as_now, comparable
from drpo.lab.plan import Run, row_path
from drpo.lab.results import Row, read_csv
from drpo.run_directory import RunDirectory


@dataclass(frozen=True)
class Reusable:
    """Finished runs by their configuration, rows of runs whose directories are gone by their command, and why others
    are left out: reason → number of runs."""

    runs: Mapping[str, Path]
    rows: Mapping[str, Row]
    refused: Mapping[str, int]


def finished_runs(sources: Sequence[Path]) -> Reusable:
    """The finished runs below ``sources`` that would come out the same here: made on this model of processor, by this
    version of torch and this code.

    Raises:
        CheckpointError: a source holds neither runs nor tables. DataError: a table is damaged.
    """
    runs: dict[str, Path] = {}
    rows: dict[str, Row] = {}
    refused: Counter[str] = Counter()
    for source in sources:
        found, kept = _finished(source), _finished_rows(source)
        if not found and not kept:
            raise CheckpointError(f"{source} holds no runs to reuse. Give the directory of a study that ran.")
        for key, run in found:
            manifest = run.read_manifest()
            made = manifest.get("cpu"), manifest.get("versions", {}).get("torch"), manifest.get("code")
            if reason := "a branch of another run" if manifest.get("parent") else _elsewhere(*made):
                refused[reason] += 1
            else:
                runs[key] = run.path
        for key, row in kept:
            if reason := _elsewhere(row.get("cpu"), row.get("torch"), row.get("code")):
                refused[reason] += 1
            else:
                rows[key] = row
    return Reusable(runs, rows, refused)


def _elsewhere(cpu: str | None, torch: str | None, code: str | None) -> str:
    """Why a run would not come out the same here; empty if it would."""
    here = {"processor": cpu_model(), "version of torch": version("torch"), "code of drpo": training_code()}
    for (name, own), other in zip(here.items(), (cpu, torch, code), strict=True):
        if other != own:
            return f"another {name}" if other else f"{name} not recorded"
    return ""


def reuse_runs(runs: Sequence[Run], directory: StudyDirectory, finished: Reusable) -> list[Run]:
    """Copy ``finished`` runs of the same configuration, checkpoints left out, or their rows, into those of ``runs``
    that have not started; returns those.

    The configuration holds the seed, and ``finished`` leaves out other machines: what is copied is what would have come
    out. Its manifest, copied too, says
    where it ran and by which command.

    Raises:
        CheckpointError: the copy cannot be written.
    """
    found, there = [], directory.reused()
    for run in runs:
        if RunDirectory(directory.path / run.path).exists() or str(run.path) in there:
            continue
        if path := finished.runs.get(_key(comparable(run.config))):
            _copy(path, directory.path / run.path)
            directory.write_entry("reused", run, source=str(path))
            found.append(run)
        elif row := finished.rows.get(_without_place(run.command(directory.path))):
            directory.write_reused(run, row)
            directory.write_entry("reused", run, source=row["command"])
            found.append(run)
    return found


def _finished_rows(source: Path) -> list[tuple[str, Row]]:
    """The rows of finished runs in the tables of ``source`` whose directories are gone, with their curves, by their
    commands."""
    if not (source / "results.csv").is_file():
        return []
    curves = run_curves(source / "curves.csv")
    rows = [
        row
        for row in read_csv(source / "results.csv")
        if row["status"] == "finished" and row.get("command") and not RunDirectory(source / row_path(row)).exists()
    ]
    return [(_without_place(row["command"]), row | {"curves": curves[row_place(row)]}) for row in rows]


def _without_place(command: str) -> str:
    """A run's command but for where it writes: its settings, the seed among them."""
    return command.rpartition(" --out ")[0]


def _finished(source: Path) -> list[tuple[str, RunDirectory]]:
    runs = [RunDirectory(file.parent) for file in sorted(source.rglob("config.yaml"))]
    return [(_key(as_now(run)), run) for run in runs if run.read_manifest().get("status") == "finished"]


def _key(config: object) -> str:
    return json.dumps(config, sort_keys=True)


def _copy(source: Path, target: Path) -> None:
    """Under another name first: what bears the run's name is whole."""
    temporary = target.with_name(f".{target.name}.copying")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("checkpoints"))
        temporary.rename(target)
    except OSError as error:
        raise CheckpointError(f"cannot copy {source} to {target}: {error.strerror or error}") from error
