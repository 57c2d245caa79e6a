"""Runs that another study already did: the same configuration on the same kind of machine, hence the same run.

They are copied where their directories are there. Where a study's tables are all that is left of it (results.csv and
curves.csv, as they are committed), their rows are taken over: reused.jsonl of the study that goes on holds them, a line
a run, each with ``run`` (its path) and ``row``.

Another model of processor rounds differently, so that its runs are not those that would come out here. Arms are
compared within a seed, however, and that comparison holds as long as all arms of the seed ran on one processor: rows
of another processor are taken over in whole blocks (a setting and a seed with every arm), or not at all. A tuning
compares the tries of one arm, so that its block is an arm and a seed with every try.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
    """Finished runs by their configuration; rows of runs whose directories are gone by their command, those from here
    and those of each other processor; and why others are left out: reason → number of runs."""

    runs: Mapping[str, Path]
    rows: Mapping[str, Row]
    elsewhere: Mapping[str, Mapping[str, Row]]
    refused: Mapping[str, int]


def finished_runs(sources: Sequence[Path]) -> Reusable:
    """The finished runs below ``sources`` that would come out the same here: made on this model of processor, by this
    version of torch and this code. Of tables also the rows that only the processor sets apart.

    Raises:
        CheckpointError: a source holds neither runs nor tables. DataError: a table is damaged.
    """
    runs: dict[str, Path] = {}
    rows: dict[str, dict[str, Row]] = {cpu_model(): {}}
    refused: Counter[str] = Counter()
    for source in sources:
        found, kept = _finished(source), _finished_rows(source)
        if not found and not kept:
            raise CheckpointError(f"{source} holds no runs to reuse. Give the directory of a study that ran.")
        for key, run in found:
            manifest = run.read_manifest()
            made = {"torch": manifest.get("versions", {}).get("torch"), "code": manifest.get("code")}
            reason = "a branch of another run" if manifest.get("parent") else ""
            if reason := reason or _other("processor", manifest.get("cpu"), cpu_model()) or _other_software(made):
                refused[reason] += 1
            else:
                runs[key] = run.path
        for key, row in kept:
            cpu = str(row.get("cpu") or "")
            if reason := _other_software(row) if cpu else "processor not recorded":
                refused[reason] += 1
            else:
                rows.setdefault(cpu, {})[key] = row
    return Reusable(runs, rows.pop(cpu_model()), rows, refused)


def _other_software(made: Mapping[str, Any]) -> str:
    return _other("version of torch", made.get("torch"), version("torch")) or _other(
        "code of drpo", made.get("code"), training_code()
    )


def _other(name: str, there: str | None, here: str) -> str:
    """Why a run would not come out the same here; empty if it would."""
    if there == here:
        return ""
    return f"another {name}" if there else f"{name} not recorded"


def reuse_runs(runs: Sequence[Run], directory: StudyDirectory, finished: Reusable) -> list[Run]:
    """Copy ``finished`` runs of the same configuration, checkpoints left out, or their rows, into those of ``runs``
    that have not started; returns those.

    The configuration holds the seed, and ``finished`` leaves out other machines: what is copied is what would have come
    out, but for whole blocks of another processor. Its manifest, copied too, says where it ran and by which command.

    Raises:
        CheckpointError: the copy cannot be written.
    """
    found, there = [], directory.reused()
    rows = {**finished.rows, **_blocks_elsewhere(runs, directory, finished, there)}
    for run in runs:
        if RunDirectory(directory.path / run.path).exists() or str(run.path) in there:
            continue
        if path := finished.runs.get(_key(comparable(run.config))):
            _copy(path, directory.path / run.path)
            directory.write_entry("reused", run, source=str(path))
            found.append(run)
        elif row := rows.get(_without_place(run.command(directory.path))):
            directory.write_reused(run, row)
            directory.write_entry("reused", run, source=row["command"])
            found.append(run)
    return found


def _blocks_elsewhere(
    runs: Sequence[Run], directory: StudyDirectory, finished: Reusable, there: Mapping[str, Row]
) -> dict[str, Row]:
    """The rows of other processors that complete a block of ``runs`` of which nothing is here, by their commands."""
    blocks: dict[tuple[str, str, int, str], list[Run]] = {}
    for run in runs:
        compared = run.arm if run.phase == "tuning" else ""
        blocks.setdefault((run.phase, run.setting, run.seed, compared), []).append(run)
    found: dict[str, Row] = {}
    for block in blocks.values():
        if any(RunDirectory(directory.path / run.path).exists() or _is_here(run, directory, finished) for run in block):
            continue
        for cpu, rows in finished.elsewhere.items():
            mine = {_without_place(run.command(directory.path)): there.get(str(run.path)) for run in block}
            if all(row["cpu"] == cpu if row else command in rows for command, row in mine.items()):
                found |= {command: rows[command] for command, row in mine.items() if row is None}
                break
    return found


def _is_here(run: Run, directory: StudyDirectory, finished: Reusable) -> bool:
    return _key(comparable(run.config)) in finished.runs or _without_place(run.command(directory.path)) in finished.rows


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
