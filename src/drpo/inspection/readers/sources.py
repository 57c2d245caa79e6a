"""From what the user points at to the files that hold tokens."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drpo.checks import is_positive
from drpo.errors import DataError
from drpo.inspection.readers.columns import NAMES
from drpo.inspection.readers.json_file import read_json
from drpo.inspection.readers.jsonl import STDIN, STDIN_NAME, read_jsonl_tokens, read_stdin
from drpo.inspection.readers.parquet import read_parquet
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.tokens import Tokens
from drpo.inspection.readers.torch_file import read_torch
from drpo.run_directory import RunDirectory, step_of_file

#: Ending → reader.
READERS: dict[str, Callable[[Path, Reading], Iterator[Tokens | None]]] = {
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
    paths, files = list(paths), []
    for path in paths:
        found = files_of(path)
        if not found:
            raise DataError(_none_in(path))
        files += found
    require_files(files)
    return describe_log(paths, files)


def files_of(path: Path, known: Container[Path] = ()) -> list[Path]:
    """The files that ``path`` means, in order: itself, those of a folder, or the token log of a run; empty where a
    folder or a run has none.

    Args:
        path: need not exist.
        known: files that were read, of which the schema need not be checked.

    Raises:
        DataError: it cannot be read. SchemaError: a newer version of drpo wrote a file.
    """
    try:
        if path == STDIN or not path.is_dir():
            return [path]
        run = RunDirectory(path)
        return run.token_files(known) if run.exists() else _files_of_folder(path, known)
    except OSError as error:
        raise DataError(
            f"{path!s:.200} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error


def describe_log(paths: Iterable[Path], files: list[Path]) -> Log:
    """The log of these ``files``, with what the runs among ``paths`` say.

    Raises:
        CheckpointError, DataError: a configuration or manifest is damaged.
    """
    runs = [run for path in paths if path != STDIN and (run := RunDirectory(path)).exists()]
    configs = [run.read_config() for run in runs]
    deltas = {delta for config in configs if (delta := _delta_of(config)) is not None}
    objectives = {name for config in configs if (name := _objective_of(config)) is not None}
    return Log(
        files,
        deltas.pop() if len(deltas) == 1 else None,
        objectives.pop() if len(objectives) == 1 else None,
        _outcome_of(runs[0]) if len(runs) == 1 else {},
    )


def _none_in(path: Path) -> str:
    """Why a folder or a run has no token log, and what to do."""
    if RunDirectory(path).exists():
        return f"{path} logged no tokens. Start the run again with log_tokens=sample, or true for all tokens."
    return f"{path} holds neither a run nor token logs ({', '.join(READERS)})."


def require_files(files: Sequence[Path]) -> None:
    """Raise a DataError that names the first file that is none, is of an unknown kind, or is empty."""
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
        if reader_of(file) is None:
            convert = "Rename the file, or convert it."
            if file.suffix.lower() == ".csv":
                convert = "Convert it: pandas.read_csv(FILE).to_json('log.jsonl', orient='records', lines=True)."
            raise DataError(f"{file}: unknown ending {file.suffix!r:.80}. Known: {', '.join(READERS)}. {convert}")
        if not file.stat().st_size:
            raise DataError(f"{file} is empty (0 bytes). Give a log with at least one token.")


def read_log(
    log: Log, reading: Reading | None = None, first_look: Callable[[Tokens], None] | None = None
) -> Iterator[tuple[Tokens, float]]:
    """The chunks of every file, each with the share of the whole log read so far (0 for the standard input).

    A log without advantages is read twice, first for the rewards that they are computed from.

    Args:
        log: the files.
        reading: what the reader is told and tells.
        first_look: is shown every chunk of a first reading, before the log is read again.

    Raises:
        DataError: a file is malformed; or the standard input is to be read twice.
    """
    reading = Reading() if reading is None else reading
    if first_look is not None and STDIN in log.files:
        raise DataError("the standard input cannot be read twice, which --last asks for. Save it as a file.")
    for tokens, done in _chunks(log, reading):
        if first_look is not None:
            first_look(tokens)
        elif not reading.rewards.collecting:
            yield tokens, done
    if reading.rewards.collecting and STDIN in log.files:
        raise DataError(
            "the standard input has no advantages, and to compute them from rewards a log is read twice. Save it "
            "as a file."
        )
    if reading.rewards.collecting:
        reading.rewards.finish()
    elif first_look is None:
        return
    reading.start_again()
    yield from _chunks(log, reading)


def last_files(log: Log, count: int) -> Log | None:
    """The log of the last ``count`` steps alone, where each file is a step's and its name says which, as in our own
    token logs; None for any other log."""
    steps = [step_of_file(file) for file in log.files]
    if None in steps:
        return None
    last = set(sorted({step for step in steps if step is not None})[-count:])
    return replace(log, files=[file for file, step in zip(log.files, steps, strict=True) if step in last])


def _chunks(log: Log, reading: Reading) -> Iterator[tuple[Tokens, float]]:
    sizes = [0 if file == STDIN else file.stat().st_size for file in log.files]
    total, before = max(sum(sizes), 1), 0
    for file, size in zip(log.files, sizes, strict=True):
        read = reader_of(file)
        assert read is not None  # find_log has refused other endings
        for tokens in read(file, reading):
            if tokens is not None:
                yield tokens, (before + size * tokens.done) / total
        before += size


def reader_of(file: Path) -> Callable[[Path, Reading], Iterator[Tokens | None]] | None:
    """What reads ``file``, by its ending; None for an unknown one."""
    if file == STDIN:
        return read_stdin
    return next((reader for ending, reader in READERS.items() if file.name.lower().endswith(ending)), None)


def _files_of_folder(folder: Path, known: Container[Path]) -> list[Path]:
    """Its files at any depth, in the order of the numbers in their paths, as 10.jsonl comes after 9.jsonl.

    Of a run directory within it, and of any folder with a token log of ours (a TRL run's output), the token log alone.
    """
    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        run = RunDirectory(Path(place))
        logged = run.token_files(known)
        if logged or run.exists():
            folders.clear()
            files += logged
        else:
            files += [file for name in names if (file := Path(place) / name) in known or _is_log(file)]
    return sorted(
        files,
        key=lambda file: [
            int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(file.relative_to(folder)))
        ],
    )


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a folder that was removed meanwhile holds no log
        raise error


def _is_log(file: Path) -> bool:
    if reader_of(file) is None or file.name.startswith(".") or not file.is_file():
        return False
    if not file.name.lower().endswith(SHARED):
        return True
    try:
        with file.open("rb") as stream:
            return _TELLING.search(stream.read(_PEEK)) is not None
    except FileNotFoundError:  # removed meanwhile
        return False


def _delta_of(config: dict[str, Any]) -> float | None:
    objective = config.get("objective")
    delta = objective.get("delta") if isinstance(objective, dict) else None
    return float(delta) if is_positive(delta) else None  # pyright: ignore[reportArgumentType]


def _objective_of(config: dict[str, Any]) -> str | None:
    objective = config.get("objective")
    name = objective.get("name") if isinstance(objective, dict) else None
    return name if isinstance(name, str) else None


def _outcome_of(run: RunDirectory) -> Mapping[str, Any]:
    found = run.read_manifest().get("outcome")
    return found if isinstance(found, Mapping) else {}
