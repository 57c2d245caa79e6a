"""Runs that another study already did: the same configuration on the same kind of machine, hence the same run."""

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
from drpo.lab.directory import StudyDirectory, as_now, comparable
from drpo.lab.plan import Run
from drpo.run_directory import RunDirectory


@dataclass(frozen=True)
class Reusable:
    """Finished runs by their configuration, and why others are left out: reason → number of runs."""

    runs: Mapping[str, Path]
    refused: Mapping[str, int]


def finished_runs(sources: Sequence[Path]) -> Reusable:
    """The finished runs below ``sources`` that would come out the same here: made on this model of processor, by this
    version of torch and this code.

    Raises:
        CheckpointError: a source holds no runs.
    """
    runs: dict[str, Path] = {}
    refused: Counter[str] = Counter()
    for source in sources:
        for key, run in _finished(source):
            if reason := _elsewhere(run.read_manifest()):
                refused[reason] += 1
            else:
                runs[key] = run.path
    return Reusable(runs, refused)


def _elsewhere(manifest: Mapping[str, Any]) -> str:
    """Why a run would not come out the same here; empty if it would."""
    if manifest.get("parent"):
        return "a branch of another run"
    here = {"processor": cpu_model(), "version of torch": version("torch"), "code of drpo": training_code()}
    there = (manifest.get("cpu"), manifest.get("versions", {}).get("torch"), manifest.get("code"))
    for (name, own), other in zip(here.items(), there, strict=True):
        if other != own:
            return f"{name} not recorded" if other is None else f"another {name}"
    return ""


def reuse_runs(runs: Sequence[Run], directory: StudyDirectory, finished: Mapping[str, Path]) -> list[Run]:
    """Copy ``finished`` runs of the same configuration, checkpoints left out, into those of ``runs`` that have not
    started; returns those.

    The configuration holds the seed, and ``finished`` leaves out other machines: what is copied is what would have come
    out. Its manifest, copied too, says
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


def _finished(source: Path) -> list[tuple[str, RunDirectory]]:
    runs = [RunDirectory(file.parent) for file in sorted(source.rglob("config.yaml"))]
    if not runs:
        raise CheckpointError(f"{source} holds no runs to reuse. Give the directory of a study that ran.")
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
