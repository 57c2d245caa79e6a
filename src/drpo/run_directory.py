"""The schema of a run directory: this module writes it, everything else reads it through this module.

config.yaml          the resolved configuration
manifest.json        versions, seed, status, command
metrics.jsonl        one record an update (kind "update") and one an evaluation (kind "evaluation")
rollouts/            step-NNNNNN.jsonl (sampled training responses), evaluation-NNNNNN.jsonl
tokens/              step-NNNNNN.jsonl (one line a response, its tokens as lists; a sample, or all with log_tokens=true)
checkpoints/         step-NNNNNN/ each
vllm.log             the output of vLLM's process (with sampler=vllm only)
report.html
.lock                held, and named, by the process that trains here
inspection.html      what `drpo inspect` found in tokens/
tensorboard/ wandb/  what those trackers keep here

manifest.json and every line of a .jsonl file carry a ``schema`` number (:mod:`drpo.schema`); the manifest's stands for
config.yaml too, which is also what `drpo train CONFIG.yaml` takes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from drpo.errors import CheckpointError, DataError
from drpo.files import (
    JsonLine,
    append_records,
    cut_torn_line,
    json_line,
    json_text,
    numbered_jsonl,
    read_json,
    read_jsonl,
    replace_text,
    writing,
)
from drpo.locking import last_holder, locked
from drpo.run_schema import MEASURED, Metrics, check_manifest, check_metrics
from drpo.schema import check_schema, numbered, unnumbered

#: Bin edges of the histograms that every update records; values outside fall into the first or last bin.
SHIFT_EDGES: tuple[float, ...] = (0.0, *(10 ** (-6 + i / 4) for i in range(25)))
WEIGHT_EDGES: tuple[float, ...] = tuple(-3 + 0.2 * i for i in range(41))
#: Field of a line of `tokens/`: the gradient weight of each token under the run's objective, null where Â = 0. Logs of
#: older versions and of other loops lack it.
WEIGHTS = "gradient_weights"

_RESTORE = "Restore it from a backup, or start a new run."


class _ConfigDumper(yaml.SafeDumper):
    """Quotes the texts that a configuration file would be read with as numbers (3e-4), and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> Any:
        # Other line ends of Unicode are folded unless they are escaped.
        style = '"' if re.search("[\x85\u2028\u2029]", data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_ConfigDumper.add_representer(str, _ConfigDumper.represent_str)
_ConfigDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def config_text(values: dict[str, Any]) -> str:
    """A configuration file that `drpo train` reads back as ``values``."""
    return yaml.dump(values, Dumper=_ConfigDumper, sort_keys=False, allow_unicode=True)


class RunDirectory:
    """Paths, readers and writers of one run.

    Raises:
        WriteError: from any writer, when the disk refuses (full, not writable).
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.manifest_file = self.path / "manifest.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.rollouts = self.path / "rollouts"
        self.tokens = self.path / "tokens"
        self.checkpoints = self.path / "checkpoints"
        self.engine_log = self.path / "vllm.log"
        self.report_file = self.path / "report.html"
        self.inspection_file = self.path / "inspection.html"
        self.lock_file = self.path / ".lock"

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.is_file()

    @contextmanager
    def locked(self, note: Callable[[str], None]) -> Iterator[None]:
        """Hold the directory, which no other process trains in meanwhile; made if need be, and gone again if no run
        was started in it.

        Raises:
            CheckpointError: another process trains here; the message names it.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.lock_file, note):
            try:
                yield
            finally:
                if not self.exists():
                    with suppress(OSError):  # something else was put there: it stays
                        self.lock_file.unlink()
                        for folder in made:
                            folder.rmdir()

    def create(self, config: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Make the directory and write its configuration last: with it, the run exists."""
        with self._writing():
            self.rollouts.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
        self.write_manifest(manifest)
        self._write(self.config_file, config_text(config))

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            CheckpointError: there is no run here, or its configuration is empty, damaged or no mapping.
        """
        if not self.exists():
            raise CheckpointError(
                f"{self.path} holds no run (no config.yaml). Give the directory that "
                "`drpo train` printed, or start a run with --out."
            )
        try:
            values = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{self.config_file} cannot be read: {reason}. {_RESTORE}") from error
        if not isinstance(values, dict):
            found = "is empty" if values is None else f"holds a {type(values).__name__}, not settings"
            raise CheckpointError(f"{self.config_file} {found}. {_RESTORE}")
        return {str(key): value for key, value in values.items()}

    def read_manifest(self) -> dict[str, Any]:
        """What was written by :meth:`write_manifest`; empty if there is none.

        Raises:
            DataError: it is damaged; the message names the file and the field. SchemaError: a newer version wrote it.
        """
        if not self.manifest_file.is_file():
            return {}
        return check_manifest(read_json(self.manifest_file), self.manifest_file)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest."""
        self._write(self.manifest_file, json_text(numbered("manifest", manifest)))

    def is_over(self) -> bool:
        """Whether nothing more is written here: the manifest says how the run ended, or its process has ended without
        a word. A process that has taken the directory since, to go on with the run, may not have said so yet.

        Raises:
            DataError: the manifest is damaged. SchemaError: a newer version wrote it.
        """
        manifest, holder = self.read_manifest(), last_holder(self.lock_file)
        if manifest.get("status") == "running":
            return holder is not None and holder.is_gone()
        if holder is None or holder.is_gone():
            return True
        try:
            return datetime.fromisoformat(str(manifest.get("ended"))) >= holder.since
        except (ValueError, TypeError):  # no time, or one without a zone
            return True

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with self._writing():
            append_records(self.metrics_file, [numbered("metrics", record)])

    def read_metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All whole records, of one ``kind`` if given; a last line cut off by a crash is left out.

        Raises:
            DataError: a line is damaged; the message names the file, the line and the field. SchemaError: a newer
                version wrote one.
        """
        records = (check_metrics(line.record, self._where(line)) for line in self._metrics_lines())
        return [record for record in records if kind is None or record["kind"] == kind]

    def read_measured(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """All whole records of updates and of evaluations, each with what a comparison of runs needs.

        Raises:
            DataError: a record lacks it, or a line is damaged. SchemaError: a newer version wrote one.
        """
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in MEASURED}
        for line in self._metrics_lines():
            kind = str(line.record.get("kind"))
            record = check_metrics(line.record, self._where(line), MEASURED.get(kind, Metrics))
            found.setdefault(kind, []).append(record)
        return found["update"], found["evaluation"]

    def _metrics_lines(self) -> Iterable[JsonLine]:
        return numbered_jsonl(self.metrics_file, ignore_cut_line=True) if self.metrics_file.is_file() else ()

    def _where(self, line: JsonLine) -> str:
        return f"{self.metrics_file}, line {line.number}"

    def missing_metrics(self, step: int) -> str:
        """What metrics.jsonl lacks of a run that has done ``step`` steps, in words; empty if nothing."""
        recorded, first = {record["step"] for record in self.read_metrics("update")}, self.first_step()
        missing = [number for number in range(first + 1, step + 1) if number not in recorded]
        evaluated = any(record["step"] == first for record in self.read_metrics("evaluation"))
        lacking = ([] if evaluated or step <= first else ["the evaluation before training"]) + (
            [f"the updates of {_steps_in_words(missing)}"] if missing else []
        )
        return f"{self.metrics_file} lacks {' and '.join(lacking)}; curves and means leave them out" if lacking else ""

    def torn_metrics(self) -> str:
        """That metrics.jsonl ends in half a record, in words; empty if it does not."""
        torn = self.metrics_file.is_file() and not _ends_whole(self.metrics_file)
        return f"{self.metrics_file}: the last line is incomplete and ignored" if torn else ""

    def gaps(self) -> list[str]:
        """What is missing of the records that this run must have made, in words."""
        last = self.steps_sampled() - (self.read_manifest().get("status") != "finished")
        recorded = max((record["step"] for record in self.read_metrics("update")), default=0)
        return [said for said in (self.torn_metrics(), self.missing_metrics(max(last, recorded))) if said]

    def rewind(self, step: int) -> None:
        """Forget everything recorded after ``step``, as a resumed run will record it again."""
        with self._writing():
            cut_torn_line(self.metrics_file)
        kept = [record for record in self.read_metrics() if record["step"] <= step]
        self._write(self.metrics_file, _lines("metrics", kept))
        with self._writing():
            for folder in (self.rollouts, self.tokens):
                for number, file in numbered_files(folder, "[a-z]+"):
                    if number > step:
                        file.unlink()

    def write_rollouts(self, name: str, step: int, records: Iterable[dict[str, Any]]) -> None:
        """Write ``rollouts/NAME-STEP.jsonl``: dicts with prompt, answer, text, reward, stop_reason."""
        self._write(self.rollouts / f"{name}-{step:06d}.jsonl", _lines("rollouts", records))

    def read_rollouts(self, name: str, only: int | None = None) -> dict[int, list[dict[str, Any]]]:
        """Step → records of every ``rollouts/NAME-*.jsonl``, or that of one step alone, in order of step.

        Raises:
            DataError: a line is no JSON object. SchemaError: a newer version wrote the file.
        """
        return {
            step: [unnumbered("rollouts", line.record, f"{file}, line {line.number}") for line in numbered_jsonl(file)]
            for step, file in numbered_files(self.rollouts, re.escape(name))
            if only is None or step == only
        }

    def first_step(self) -> int:
        """The step after which the run began: 0, or that of the checkpoint that a branch goes on from."""
        parent = self.read_manifest().get("parent")
        return parent["step"] if parent else 0

    def steps_sampled(self) -> int:
        """The last step whose rollouts were kept; 0 if none was."""
        return max((step for step, _ in numbered_files(self.rollouts, "step")), default=0)

    def write_tokens(self, step: int, records: Iterable[dict[str, Any]]) -> None:
        """Write ``tokens/step-STEP.jsonl``: a dict a response, in the layout that `drpo inspect` reads
        (docs/inspect.md)."""
        with self._writing():
            self.tokens.mkdir(exist_ok=True)
        self._write(self.tokens / token_file(step), _lines("tokens", records))

    def token_files(self, known: Container[Path] = ()) -> list[Path]:
        """Every ``tokens/step-*.jsonl`` with a record, in order of step; of those ``known``, the schema was checked.

        Raises:
            SchemaError: a newer version wrote one.
        """
        files = [file for _, file in numbered_files(self.tokens, "step") if _size(file)]
        for file in files:  # one version writes a file, so that its first line speaks for it
            if file not in known:
                with suppress(DataError, FileNotFoundError):  # whoever reads the tokens names the line
                    check_schema("tokens", next(read_jsonl(file), None), str(file))
        return files

    def write_inspection(self, html: str) -> None:
        """Write inspection.html."""
        self._write(self.inspection_file, html)

    def write_report(self, html: str) -> None:
        """Write report.html."""
        self._write(self.report_file, html)

    def _write(self, file: Path, text: str) -> None:
        with self._writing():
            replace_text(file, text)

    def _writing(self) -> AbstractContextManager[None]:
        return writing(
            self.path,
            "Free space or fix its permissions, then continue with `drpo train --resume "
            f"{self.path}`, or choose another directory with --out.",
        )


def token_file(step: int) -> str:
    """The name of the token log of a step."""
    return f"step-{step:06d}.jsonl"


def step_of_file(file: Path) -> int | None:
    """The step whose token log ``file`` is, ``tokens/step-NNNNNN.jsonl``; None for any other file."""
    match = re.fullmatch(r"step-(\d{6,15})\.jsonl", file.name)
    return int(match[1]) if match and file.absolute().parent.name == "tokens" else None


def numbered_files(folder: Path, name: str) -> list[tuple[int, Path]]:
    """The files NAME-STEP.jsonl of ``folder`` by step; a copy, or a file of any other name, is somebody else's."""
    if not folder.is_dir():
        return []
    found = ((re.fullmatch(rf"({name})-(\d{{6,15}})\.jsonl", file.name), file) for file in folder.iterdir())
    return sorted((int(match[2]), file) for match, file in found if match and file.is_file())


def _size(file: Path) -> int:
    """In bytes; 0 for a file that has just been removed."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _lines(kind: str, records: Iterable[dict[str, Any]]) -> str:
    return "".join(json_line(numbered(kind, record)) for record in records)


def _ends_whole(file: Path) -> bool:
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        return stream.read(1) in (b"", b"\n")


def _steps_in_words(steps: list[int], most: int = 4) -> str:
    """steps 1, 3 to 7 and 9."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], step]
        else:
            runs.append([step])
    said = [f"{run[0]} to {run[1]}" if len(run) > 1 else str(run[0]) for run in runs[:most]]
    more = f" and {len(runs) - most} more ranges" if len(runs) > most else ""
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(said)}{more}"
