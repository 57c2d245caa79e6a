"""A token log that is inspected while it is written: each look reads what is new, and the counts go on."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drpo.errors import ConfigError, DataError
from drpo.inspection.inspect import Survey, nothing_counted, require_delta
from drpo.inspection.readers.column_map import AUTOMATIC, ColumnMap
from drpo.inspection.readers.columns import FIELDS
from drpo.inspection.readers.growing import Replaced, is_tailed
from drpo.inspection.readers.jsonl import STDIN
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.sources import describe_log, files_of, find_log, reader_of, require_files
from drpo.inspection.readers.tokens import Tokens
from drpo.inspection.readers.written_once import is_whole
from drpo.inspection.result import Inspection
from drpo.inspection.steps import Steps
from drpo.inspection.verdicts import choose_objectives
from drpo.run_directory import RunDirectory

#: Seconds after which a look stops at the next chunk, so that whoever waits for it learns how far it is.
LONGEST_LOOK = 2.0

#: What tells whether a file was written to: file system, file, size and time.
Stamp = tuple[int, ...]


@dataclass(slots=True)
class _File:
    """A file that was found.

    Attributes:
        stamp: when it was last looked at; empty before.
        chunks: what is left of it; None before it is read.
        is_paused: all that it had was read, and it may grow.
        is_done: it was read, once.
        has_tokens: some of them were counted.
    """

    stamp: Stamp = ()
    chunks: Iterator[Tokens | None] | None = None
    is_paused: bool = False
    is_done: bool = False
    has_tokens: bool = False


class Following:
    """What was counted of a log so far.

    JSONL files are read as they grow, line by line. Files of other kinds are read once, when they are whole. A file
    that is not what it was when it was read (shorter, replaced, gone) makes the counts start again, which ``notes``
    says: at any time they are those of the log as it is on the disk.

    Args:
        paths: files, folders or run directories; they need not exist yet.
        delta, objectives, columns, steps: as :func:`drpo.inspection.inspect.inspect` takes them.

    Raises:
        ConfigError: delta is not positive, an objective is unknown, or the standard input is among the paths.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        delta: float | None = None,
        objectives: Sequence[str] | None = None,
        columns: ColumnMap = AUTOMATIC,
        steps: Steps = Steps(),  # noqa: B008 - it is frozen
    ):
        require_delta(delta)
        choose_objectives(objectives, delta, FIELDS.values())
        self.paths = tuple(paths)
        if STDIN in self.paths:
            raise ConfigError("--follow reads files, and - is the standard input. Name files, or leave --follow out.")
        self._delta, self._objectives, self._columns, self._steps = delta, objectives, columns, steps
        #: What happened, in words; whoever shows it takes it out.
        self.notes: list[str] = []
        #: Whether the last look stopped before it had read everything.
        self.is_behind = False
        self._begin()

    def _begin(self) -> None:
        self._reading = Reading(self._columns, follows=True)
        self._survey: Survey | None = None
        self._files: dict[Path, _File] = {}
        self._configs: dict[Path, Stamp] = {}

    def look(self, seconds: float = LONGEST_LOOK) -> bool:
        """Count what was written since the last look, for about so many seconds; whether anything was counted.

        Raises:
            DataError, ConfigError: as :func:`drpo.inspection.inspect.inspect`; or the log has no advantages.
        """
        until, before = time.monotonic() + seconds, self._counted()
        try:
            self._find()
            self.is_behind = not all(self._read(path, file, until) for path, file in self._files.items())
        except Replaced as reason:
            self._start_again(reason)
        return self._counted() != before

    def finish(self) -> None:
        """Count what was held back: a last response, or a last line, that may be unfinished.

        Raises:
            DataError, ConfigError: as :meth:`look`.
        """
        while True:
            self._reading.ended = True
            try:
                for file in self._files.values():
                    for tokens in file.chunks if file.is_paused and file.chunks else ():
                        self._count(tokens)
                break
            except Replaced as reason:
                self._start_again(reason)
                while self.is_behind:
                    self.look(math.inf)
        self.notes += [f"{path} is not whole and was not read" for path in self._halves()]
        if self._survey is not None:
            self._survey.log = describe_log(self.paths, list(self._files))  # what the run came to

    def is_over(self) -> bool:
        """Whether nothing more will come: all paths are runs that have ended.

        Raises:
            DataError: a manifest is damaged.
        """
        return all(run.exists() and run.is_over() for run in map(RunDirectory, self.paths))

    def waits_for(self) -> str:
        """What is missing for a result, in words; empty if nothing is."""
        if self._survey is not None:
            wanted = f"a token of the steps {self._steps}" if self._steps != Steps() else "a usable token"
            return "" if self._survey.tokens else wanted
        if halves := self._halves():
            return f"{halves[0]} to be whole"
        absent = next((path for path in self.paths if not path.exists()), None)
        return f"the first tokens of {self.paths[0]}" if absent is None else f"{absent}, which does not exist yet"

    def result(self) -> Inspection:
        """What was found so far.

        Raises:
            DataError: nothing was counted.
        """
        survey = self._survey
        if survey is None:
            find_log(self.paths)  # it says what is missing
            raise DataError(f"no token was read of {self.paths[0]}: there is no result.")
        survey.log = dataclasses.replace(survey.log, files=list(self._files))
        if not survey.tokens:
            raise DataError(nothing_counted(survey.log, self._reading, survey, self._steps))
        return survey.result()

    def _start_again(self, reason: Replaced) -> None:
        self.notes.append(f"{reason}: the log is read from its beginning")
        self._begin()
        self.is_behind = True

    def _counted(self) -> tuple[int, int]:
        return (0, 0) if self._survey is None else (self._survey.tokens, self._survey.unusable.tokens)

    def _halves(self) -> list[Path]:
        return [path for path, file in self._files.items() if file.chunks is None]

    def _find(self) -> None:
        """Note new files, and that none is missing."""
        for run in map(RunDirectory, self.paths):
            if run.exists():
                self._check_config(run)
        begun = {path for path, file in self._files.items() if file.has_tokens}
        found = [path for given in self.paths for path in files_of(given, begun) if _has_begun(path)]
        require_files([path for path in found if path not in begun])
        if gone := self._files.keys() - found:
            raise Replaced(f"{min(gone)} is gone")
        for path in found:
            self._files.setdefault(path, _File())

    def _check_config(self, run: RunDirectory) -> None:
        """A run that goes on may have another objective, and one that logs no tokens is not worth waiting for."""
        before, stamp = self._configs.get(run.path), _stamp(run.config_file)
        self._configs[run.path] = stamp
        if before not in (None, stamp):
            raise Replaced(f"{run.config_file} was written anew")
        if before is None and run.read_config().get("log_tokens") is False:
            find_log([run.path])  # says so

    def _read(self, path: Path, file: _File, until: float) -> bool:
        """Count what is new in one file; whether that was all of it."""
        if file.chunks is None or file.is_paused or file.is_done:
            stamp = _stamp(path)
            if stamp == file.stamp:
                return True
            if file.is_done:
                raise Replaced(f"{path} was written anew")
            file.stamp = stamp
        if file.chunks is None:
            if not (is_tailed(path) or is_whole(path)):
                return True
            read = reader_of(path)
            assert read is not None  # files of other endings are refused
            file.chunks = read(path, self._reading)
        file.is_paused = False
        for tokens in file.chunks:
            if tokens is None:
                file.is_paused = True
                return True
            self._count(tokens)
            file.has_tokens = True
            if time.monotonic() > until:
                return False
        file.is_done = True
        return True

    def _count(self, tokens: Tokens | None) -> None:
        if tokens is None:
            return
        if self._reading.rewards.reward:
            raise ConfigError(
                f"{tokens.source} has no advantages, and to compute them from rewards a log is read twice, which "
                "--follow does not. Log the advantages, or leave --follow out."
            )
        chosen = self._steps.select(tokens)
        if self._survey is None:
            log = describe_log(self.paths, list(self._files))
            self._survey = Survey(log, self._delta, self._objectives, chosen.optional, self._reading)
        self._survey.add(chosen)


def _has_begun(path: Path) -> bool:
    """Whether something is there that is not an empty file."""
    stamp = _stamp(path)
    return bool(stamp) and (stamp[2] > 0 or not path.is_file())


def _stamp(path: Path) -> Stamp:
    """Empty for a file that is not there."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
