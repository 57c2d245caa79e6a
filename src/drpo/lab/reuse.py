"""Runs that another study already did: the same configuration, hence the same run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from drpo.errors import CheckpointError
from drpo.lab.directory import StudyDirectory, as_now, comparable
from drpo.lab.plan import Run
from drpo.run_directory import RunDirectory


def finished_runs(sources: Sequence[Path]) -> dict[str, Path]:
    """The finished runs below ``sources`` by their configuration.

    Raises:
        CheckpointError: a source holds no runs.
    """
    return {key: path for source in sources for key, path in _finished(source)}


def reuse_runs(runs: Sequence[Run], directory: StudyDirectory, finished: Mapping[str, Path]) -> list[Run]:
    """Copy ``finished`` runs of the same configuration, checkpoints left out, into those of ``runs`` that have not
    started; returns those.

    The configuration holds the seed, so that what is copied is what would have come out. Its manifest, copied too, says
    where it ran and by which command.

    Raises:
        CheckpointError: the copy cannot be written.
    """
    found = []
    for run in runs:
        path = finished.get(_key(comparable(run.config)))
        if path and not RunDirectory(directory.path / run.path).exists():
            _copy(path, directory.path / run.path)
            directory.write_entry("reused", run, source=str(path))
            found.append(run)
    return found


def _finished(source: Path) -> list[tuple[str, Path]]:
    runs = [RunDirectory(file.parent) for file in sorted(source.rglob("config.yaml"))]
    if not runs:
        raise CheckpointError(f"{source} holds no runs to reuse. Give the directory of a study that ran.")
    return [(_key(as_now(run)), run.path) for run in runs if run.read_manifest().get("status") == "finished"]


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
