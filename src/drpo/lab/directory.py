"""A study's directory, and how each of its runs stands.

about.json           when it was registered, as which study, to be analyzed by which code
study.yaml           the study, with what its files said written out; its scale applied
journal.jsonl        a line whenever a run starts, ends, or is taken over from another study
choices.json         what the tuning chose, from which scores
reused.jsonl         rows of runs that another study's tables gave, and whose directories are gone
tuning/SETTING/ARM/TRY/seed-N/   runs/SETTING/ARM/seed-N/   best/SETTING/ARM/seed-N/
                     run directories; beside each the configuration file that it was started with, seed-N.yaml, and
                     its output, seed-N.log
results.csv curves.csv results.md verdicts.json report.html
"""

from __future__ import annotations

import fcntl
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from drpo.errors import CheckpointError, ConfigError
from drpo.files import JsonLine, append_records, cut_torn_line, numbered_jsonl, replace_text, writing
from drpo.lab.hold import RUNNER_LOCK, RUNS_LOCK, Hold, lock_file, try_lock
from drpo.lab.plan import Run
from drpo.lab.registration import register
from drpo.lab.study import Study, check_study
from drpo.run_directory import RunDirectory, config_text
from drpo.run_schema import checked, shortened
from drpo.schema import numbered, unnumbered
from drpo.train.config import TrainConfig
from drpo.train.config_layers import merge, validate_config
from drpo.train.config_text import read_yaml
from drpo.train.resume import changed_settings, json_values

#: Settings that decide when a run stops or checkpoints, whether it may start, or who else is told, and nothing of what
#: a study reads from it. Token logs are read: a run without them is another run.
WITHOUT_EFFECT = frozenset(
    {
        "mismatch_limit",
        "trust_remote_code",
        "checkpoint_every",
        "checkpoint_keep",
        "trackers",
        "project",
        "grading_workers",
    }
)
#: Of a crashed run's output, what its reason quotes.
TAIL_LINES, TAIL_CHARACTERS = 6, 600
#: What helps against a full disk.
GO_ON = "Free space or fix its permissions, then start the same command again to go on; or choose another --out."


class Entry(BaseModel):
    """A line of journal.jsonl."""

    model_config = ConfigDict(extra="allow", frozen=True)

    event: str
    run: str
    exit: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class State:
    """How a run stands: ``finished``; ``failed``, for a reason; ``interrupted``, to be continued; or ``missing``. The
    last two have a reason if its machine was lost."""

    status: Literal["finished", "failed", "interrupted", "missing"]
    reason: str = ""


class StudyDirectory:
    """Paths, the journal, and the lock of one study's directory."""

    def __init__(self, path: Path):
        self.path = path
        self.study_file = path / "study.yaml"
        self.journal_file = path / "journal.jsonl"
        self.choices_file = path / "choices.json"
        self.reused_file = path / "reused.jsonl"

    def create(self, study: Study) -> None:
        """Make the directory, or find the same study in it.

        Raises:
            ConfigError: it holds another study. CheckpointError: it cannot be written to.
        """
        values = study.model_dump(exclude_none=True, exclude={"scales"})  # the one that runs is applied
        if self.study_file.is_file():
            # As this version fills it in: a key that studies gained since stops none in progress.
            before = check_study(read_yaml(self.study_file), str(self.study_file)).model_dump(
                exclude_none=True, exclude={"scales"}
            )
            keys = (before.keys() | values) - {"scales"}
            if different := sorted(key for key in keys if before.get(key) != values.get(key)):
                raise ConfigError(
                    f"{self.path} holds another study: {', '.join(different)} differ. A study is not "
                    "changed once it runs; choose another --out, or put its file back."
                )
            return
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(numbered("study", values), sort_keys=False, allow_unicode=True)
            register(study, self.path)
            replace_text(self.study_file, text)

    def writing(self) -> AbstractContextManager[None]:
        """Around writes to the directory: what the disk refuses is a WriteError."""
        return writing(self.path, GO_ON)

    def journal(self) -> list[dict[str, Any]]:
        """Every whole entry, in order.

        Raises:
            DataError: a line is damaged; the message names it. SchemaError: a newer version wrote one.
        """
        if not self.journal_file.is_file():
            return []
        return [
            _entry(line, f"{self.journal_file}, line {line.number}")
            for line in numbered_jsonl(self.journal_file, ignore_cut_line=True)
        ]

    def write_entry(
        self, event: Literal["started", "ended", "stopped", "lost", "reused"], run: Run, **details: Any
    ) -> None:
        """Add a line to the journal, and wait until the disk has it.

        Raises:
            WriteError: the disk refuses.
        """
        with self.writing():
            entry = numbered("journal", {"event": event, "run": str(run.path), **details})
            append_records(self.journal_file, [entry], sync=True)

    def write_reused(self, run: Run, row: Mapping[str, Any]) -> None:
        """Keep the row of a finished run whose directory is gone.

        Raises:
            WriteError: the disk refuses.
        """
        with self.writing():
            line = numbered("reused", {"run": str(run.path), "row": dict(row)})
            append_records(self.reused_file, [line], sync=True)

    def reused(self) -> dict[str, dict[str, Any]]:
        """The rows of such runs, by their paths.

        Raises:
            DataError: a line is damaged; the message names it. SchemaError: a newer version wrote one.
        """
        if not self.reused_file.is_file():
            return {}
        lines = numbered_jsonl(self.reused_file, ignore_cut_line=True)
        records = (unnumbered("reused", line.record, f"{self.reused_file}, line {line.number}") for line in lines)
        return {record["run"]: record["row"] | {"curves": _points(record["row"]["curves"])} for record in records}

    def states(self, runs: list[Run]) -> dict[Run, State]:
        """How each of ``runs`` stands, going by its own manifest first and the journal second."""
        last, reused = {entry["run"]: entry for entry in self.journal()}, self.reused()
        return {
            run: State("finished") if str(run.path) in reused else self._state(run, last.get(str(run.path), {}))
            for run in runs
        }

    def _state(self, run: Run, entry: dict[str, Any]) -> State:
        directory = RunDirectory(self.path / run.path)
        manifest = directory.read_manifest()
        if manifest.get("status") == "finished":
            return State("finished")
        if entry.get("event") == "ended" and entry["exit"] != 0:
            return State("failed", entry["reason"] or "no reason was recorded")
        if manifest.get("status") == "failed":  # it outlived the runner that started it
            return State("failed", manifest.get("failure", "no reason was recorded"))
        lost = entry["reason"] or "" if entry.get("event") == "lost" else ""
        return State("interrupted" if directory.exists() else "missing", lost)

    def check_kept(self, runs: list[Run]) -> None:
        """A run that is there was made by the configuration that is planned.

        Raises:
            ConfigError: one was not.
        """
        for run in runs:
            directory = RunDirectory(self.path / run.path)
            if directory.exists() and (differing := changed_settings(as_now(directory), comparable(run.config))):
                said = ", ".join(
                    f"{change['key']} was {shortened(change['before'])} and is now {shortened(change['after'])}"
                    for change in differing[:3]
                )
                raise ConfigError(
                    f"{directory.path} was run with another configuration than the study now makes (another version of "
                    f"drpo?): {said}. Choose another --out, or remove that run."
                )

    def write_config(self, run: Run) -> None:
        """Write the file that a run is started with.

        Raises:
            WriteError: the disk refuses.
        """
        file = self.path / run.config_file
        with self.writing():
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_text(file, config_text(run.config.as_dict()))

    def log_file(self, run: Run) -> Path:
        """Where a run's output goes."""
        path = self.path / run.path
        return path.with_name(f"{path.name}.log")

    def reason(self, run: Run, code: int) -> str:
        """Why a run that ended with ``code`` did, in its own words as far as it had any."""
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        lines = self.log_file(run).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{how}: {' / '.join(line.strip() for line in lines[-TAIL_LINES:])[-TAIL_CHARACTERS:]}"

    @contextmanager
    def locked(self, on_wait: Callable[[str], None]) -> Iterator[Hold]:
        """Hold the directory, once runs that outlived a killed runner have ended.

        Raises:
            CheckpointError: another runner is at work here.
        """
        with lock_file(self.path / RUNNER_LOCK) as runner, lock_file(self.path / RUNS_LOCK) as runs:
            if not try_lock(runner, fcntl.LOCK_EX):
                raise CheckpointError(f"another runner is at work in {self.path}. Wait for it, or stop it with Ctrl-C.")
            # Before the wait: a run that an earlier runner is still starting elsewhere finds that its time is over, or
            # is waited for.
            name = uuid.uuid4().hex
            os.ftruncate(runner, 0)
            os.write(runner, name.encode())
            os.fsync(runner)
            with self.writing():
                torn = cut_torn_line(self.journal_file)
            if torn:
                on_wait(f"{self.journal_file}: the last line was cut off by a crash and is removed ({torn} bytes)")
            if not try_lock(runs, fcntl.LOCK_EX):
                on_wait(f"waiting for runs that an earlier runner left behind{self._at_work()}")
                fcntl.flock(runs, fcntl.LOCK_EX)
            fcntl.flock(runs, fcntl.LOCK_SH)  # shared with runs that cannot inherit it
            yield Hold(runs, name)

    def _at_work(self) -> str:
        last = {entry["run"]: entry for entry in self.journal()}
        running = [f"{run} ({_place(entry)})" for run, entry in last.items() if entry["event"] == "started"]
        return f": {', '.join(running)}" if running else ""


def as_now(run: RunDirectory) -> dict[str, Any]:
    """The :func:`comparable` configuration of a run, with the defaults of settings that it does not have yet.

    Raises:
        CheckpointError: it is damaged. ConfigError: it has settings that this version does not allow.
    """
    return comparable(validate_config(merge(TrainConfig().as_dict(), run.read_config())))


def comparable(config: TrainConfig) -> dict[str, Any]:
    """What decides the results of a run; of versions of drpo with another default of the rest, runs are the same."""
    return json_values({key: value for key, value in config.resolved().items() if key not in WITHOUT_EFFECT})


def _points(curves: Mapping[str, list[list[Any]]]) -> dict[str, list[tuple[Any, ...]]]:
    """JSON has no pairs."""
    return {name: [tuple(point) for point in points] for name, points in curves.items()}


def _entry(line: JsonLine, where: str) -> dict[str, Any]:
    record = unnumbered("journal", line.record, where)
    return checked(Entry, record, where, " Remove the line.").model_dump()


def _place(entry: dict[str, Any]) -> str:
    return f"process {entry['pid']}" if "pid" in entry else f"Ray job {entry.get('ray_job')}"
