"""From what the user points at to the files that hold tokens."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from drpo.checks import is_positive
from drpo.errors import DataError
from drpo.inspection.readers.columns import NAMES
from drpo.inspection.readers.json_file import read_json
from drpo.inspection.readers.jsonl import STDIN, STDIN_NAME, read_jsonl_tokens, read_stdin
from drpo.inspection.readers.parquet import read_parquet
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.tokens import Tokens
from drpo.inspection.readers.torch_file import read_torch
from drpo.run_directory import RunDirectory

#: Ending → reader.
READERS: dict[str, Callable[[Path, Reading], Iterator[Tokens]]] = {
    ".parquet": read_parquet,
    ".jsonl": read_jsonl_tokens,
    ".ndjson": read_jsonl_tokens,
    ".jsonl.gz": read_jsonl_tokens,
    ".ndjson.gz": read_jsonl_tokens,
    ".jsonl.zst": read_jsonl_tokens,
    ".ndjson.zst": read_jsonl_tokens,
    ".json": read_json,
    ".pt": read_torch,
}
#: Endings that files of many other kinds have, too. In a folder such a file is read if one of the names of π or μ is
#: among its first bytes.
SHARED = (".json", ".pt")
_PEEK = 1 << 20
#: Pickled texts have a letter behind them.
_TELLING = re.compile(rf"(?<![A-Za-z_])({'|'.join((*NAMES['logprob'], *NAMES['behavior_logprob']))})".encode())


@dataclass(frozen=True, slots=True)
class Log:
    """The files of a log, in order, and if it is one run's: its objective, its bound, and what it came to."""

    files: list[Path]
    delta: float | None = None
    objective: str | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What messages call the files."""
        return [STDIN_NAME if file == STDIN else str(file) for file in self.files]


def find_log(paths: Iterable[Path]) -> Log:
    """The files that ``paths`` mean: files, folders of files, run directories, or - for the standard input.

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
            if path == STDIN:
                files.append(path)
            elif path.is_dir() and run.exists():
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


def _require_files(files: Sequence[Path]) -> None:
    if (piped := files.count(STDIN)) > 1:
        raise DataError(f"- stands for the standard input, and was given {piped} times. Give it once.")
    for file in files:
        if file == STDIN:
            continue
        if not file.is_file():
            what = "is not a regular file" if file.exists() else "does not exist"
            raise DataError(
                f"{file!s:.300} {what}. Give Parquet, JSONL, JSON or .pt files, a folder of them, a run "
                "directory, or - for JSONL from the standard input."
            )
        if _reader_of(file) is None:
            raise DataError(
                f"{file}: unknown ending {file.suffix!r:.80}. Known: {', '.join(READERS)}. Rename the "
                "file, or convert it."
            )
        if not file.stat().st_size:
            raise DataError(f"{file} is empty (0 bytes). Give a log with at least one token.")


def read_log(log: Log, reading: Reading | None = None) -> Iterator[tuple[Tokens, float]]:
    """The chunks of every file, each with the share of the whole log read so far (0 for the standard input).

    A log without advantages is read twice, first for the rewards that they are computed from.

    Raises:
        DataError: a file is malformed.
    """
    reading = Reading() if reading is None else reading
    chunks = _chunks(log, reading)
    for chunk in chunks:
        if not reading.rewards.collecting:
            yield chunk
    if reading.rewards.collecting:
        if STDIN in log.files:
            raise DataError(
                "the standard input has no advantages, and to compute them from rewards a log is read twice. Save it "
                "as a file."
            )
        reading.rewards.finish()
        reading.start_again()
        yield from _chunks(log, reading)


def _chunks(log: Log, reading: Reading) -> Iterator[tuple[Tokens, float]]:
    sizes = [0 if file == STDIN else file.stat().st_size for file in log.files]
    total, before = max(sum(sizes), 1), 0
    for file, size in zip(log.files, sizes, strict=True):
        read = _reader_of(file)
        assert read is not None  # find_log has refused other endings
        for tokens in read(file, reading):
            yield tokens, (before + size * tokens.done) / total
        before += size


def _reader_of(file: Path) -> Callable[[Path, Reading], Iterator[Tokens]] | None:
    if file == STDIN:
        return read_stdin
    return next((reader for ending, reader in READERS.items() if file.name.lower().endswith(ending)), None)


def _files_of_run(run: RunDirectory) -> list[Path]:
    files = run.token_files()
    if not files:
        raise DataError(
            f"{run.path} logged no tokens. Start the run again with log_tokens=sample, or true for all tokens."
        )
    return files


def _files_of_folder(folder: Path) -> list[Path]:
    """Its files at any depth, in the order of the numbers in their paths, as 10.jsonl comes after 9.jsonl.

    Of a run directory within it, and of any folder with a token log of ours (a TRL run's output), the token log alone.
    """
    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        run = RunDirectory(Path(place))
        logged = run.token_files()
        if logged or run.exists():
            folders.clear()
            files += logged
        else:
            files += [file for name in names if _is_log(file := Path(place) / name)]
    if not files:
        raise DataError(f"{folder} holds neither a run nor token logs ({', '.join(READERS)}).")
    return sorted(
        files,
        key=lambda file: [
            int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(file.relative_to(folder)))
        ],
    )


def _refuse(error: OSError) -> NoReturn:
    raise error


def _is_log(file: Path) -> bool:
    if _reader_of(file) is None or file.name.startswith(".") or not file.is_file():
        return False
    if not file.name.lower().endswith(SHARED):
        return True
    with file.open("rb") as stream:
        return _TELLING.search(stream.read(_PEEK)) is not None


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
