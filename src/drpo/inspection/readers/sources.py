"""From what the user points at to the files that hold tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drpo.checks import is_positive
from drpo.errors import DataError
from drpo.inspection.readers.jsonl import read_jsonl_tokens
from drpo.inspection.readers.parquet import read_parquet
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.tokens import Tokens
from drpo.run_directory import RunDirectory

#: Ending → reader.
READERS: dict[str, Callable[[Path, Reading], Iterator[Tokens]]] = {
    ".parquet": read_parquet,
    ".jsonl": read_jsonl_tokens,
    ".ndjson": read_jsonl_tokens,
    ".jsonl.gz": read_jsonl_tokens,
    ".ndjson.gz": read_jsonl_tokens,
}


@dataclass(frozen=True, slots=True)
class Log:
    """The files of a log, in order, and if it is one run's: its objective, its bound, and what it came to."""

    files: list[Path]
    delta: float | None = None
    objective: str | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)


def find_log(paths: Iterable[Path]) -> Log:
    """The files that ``paths`` (files, folders of files, run directories) mean.

    Raises:
        DataError: a path does not exist, has an unknown ending, or holds no token records.
    """
    files: list[Path] = []
    deltas: set[float] = set()
    objectives: set[str] = set()
    outcomes: list[Mapping[str, Any]] = []
    for path in paths:
        try:
            run = RunDirectory(path)
            if path.is_dir() and run.exists():
                files += _files_of_run(run)
                config = run.read_config()
                deltas |= _delta_of(config)
                objectives |= _objective_of(config)
                outcomes.append(_outcome_of(run))
            elif path.is_dir():
                files += _files_of_folder(path)
            else:
                files.append(path)
        except OSError as error:
            raise DataError(
                f"{path!s:.200} cannot be read: {error.strerror or error}. Check the path and its permissions."
            ) from error
    _require_files(files)
    return Log(
        files,
        deltas.pop() if len(deltas) == 1 else None,
        objectives.pop() if len(objectives) == 1 else None,
        outcomes[0] if len(outcomes) == 1 else {},
    )


def _require_files(files: Iterable[Path]) -> None:
    for file in files:
        if not file.is_file():
            what = "is not a regular file" if file.exists() else "does not exist"
            raise DataError(f"{file!s:.300} {what}. Give Parquet or JSONL files, a folder of them, or a run directory.")
        if _reader_of(file) is None:
            raise DataError(
                f"{file}: unknown ending {file.suffix!r:.80}. Known: {', '.join(READERS)}. Rename the "
                "file, or convert it."
            )
        if not file.stat().st_size:
            raise DataError(f"{file} is empty (0 bytes). Give a log with at least one token.")


def read_log(log: Log, reading: Reading | None = None) -> Iterator[tuple[Tokens, float]]:
    """The chunks of every file, each with the share of the whole log read so far.

    Raises:
        DataError: a file is malformed.
    """
    reading = Reading() if reading is None else reading
    sizes = [file.stat().st_size for file in log.files]
    total, before = sum(sizes), 0
    for file, size in zip(log.files, sizes, strict=True):
        read = _reader_of(file)
        assert read is not None  # find_log has refused other endings
        for tokens in read(file, reading):
            yield tokens, (before + size * tokens.done) / total
        before += size


def _reader_of(file: Path) -> Callable[[Path, Reading], Iterator[Tokens]] | None:
    return next((reader for ending, reader in READERS.items() if file.name.lower().endswith(ending)), None)


def _files_of_run(run: RunDirectory) -> list[Path]:
    files = run.token_files()
    if not files:
        raise DataError(
            f"{run.path} logged no tokens. Start the run again with log_tokens=true (and log_tokens_share "
            "below 1 to keep a sample only)."
        )
    return files


def _files_of_folder(folder: Path) -> list[Path]:
    """Its files in the order of the numbers in their names, as 10.jsonl comes after 9.jsonl."""
    files = [file for file in folder.iterdir() if _is_log(file)]
    if not files:
        # prime-rl writes token_exports/step_N/rank_R.jsonl.
        files = [file for file in folder.rglob("*") if _is_log(file)]
    if not files:
        raise DataError(f"{folder} holds neither a run nor token logs ({', '.join(READERS)}).")
    return sorted(
        files,
        key=lambda file: [
            int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(file.relative_to(folder)))
        ],
    )


def _is_log(file: Path) -> bool:
    return _reader_of(file) is not None and not file.name.startswith(".") and file.is_file()


def _delta_of(config: dict[str, Any]) -> set[float]:
    objective = config.get("objective")
    delta = objective.get("delta") if isinstance(objective, dict) else None
    return {float(delta)} if is_positive(delta) else set()  # pyright: ignore[reportArgumentType]


def _objective_of(config: dict[str, Any]) -> set[str]:
    objective = config.get("objective")
    name = objective.get("name") if isinstance(objective, dict) else None
    return {name} if isinstance(name, str) else set()


def _outcome_of(run: RunDirectory) -> Mapping[str, Any]:
    found = run.read_manifest().get("outcome")
    return found if isinstance(found, Mapping) else {}
