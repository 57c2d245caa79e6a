"""The schema of a run directory: this module writes it, everything else reads it through this module.

    config.yaml          the resolved configuration
    manifest.json        versions, seed, status, command
    metrics.jsonl        one record an update (kind "update") and one an evaluation (kind "evaluation")
    rollouts/            step-NNNNNN.jsonl (sampled training responses), evaluation-NNNNNN.jsonl
    tokens/              step-NNNNNN.jsonl (one line a response, its tokens as lists; with log_tokens only)
    checkpoints/         step-NNNNNN/ each
    vllm.log             the output of vLLM's process (with sampler=vllm only)
    report.html
    inspection.html      what `drpo inspect` found in tokens/
    tensorboard/ wandb/  what those trackers keep here
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from drpo.errors import CheckpointError, DataError

#: Bin edges of the histograms that every update records; values outside fall into the first or last bin.
SHIFT_EDGES: tuple[float, ...] = (0.0, *(10 ** (-6 + i / 4) for i in range(25)))
WEIGHT_EDGES: tuple[float, ...] = tuple(-3 + 0.2 * i for i in range(41))


class RunDirectory:
    """Paths, readers and writers of one run.

    Raises:
        CheckpointError: from any writer, when the disk refuses (full, not writable).
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

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.is_file()

    def create(self, config: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Make the directory and write its configuration last: with it, the run exists."""
        try:
            self.rollouts.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        self.write_manifest(manifest)
        self._write(self.config_file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            CheckpointError: there is no run here.
        """
        if not self.exists():
            raise CheckpointError(f"{self.path} holds no run (no config.yaml). Give the directory that "
                                  "`drpo train` printed, or start a run with --out.")
        return yaml.safe_load(self.config_file.read_text(encoding="utf-8"))

    def read_manifest(self) -> dict[str, Any]:
        """What was written by :meth:`write_manifest`; empty if there is none."""
        return json.loads(self.manifest_file.read_text(encoding="utf-8")) if self.manifest_file.is_file() else {}

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest."""
        self._write(self.manifest_file, json.dumps(_without_nan(manifest), indent=2, ensure_ascii=False) + "\n")

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        self._append(self.metrics_file, [record])

    def read_metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All whole records, of one ``kind`` if given; a last line cut off by a crash is left out."""
        records = read_jsonl(self.metrics_file, ignore_cut_line=True) if self.metrics_file.is_file() else []
        return [record for record in records if kind is None or record["kind"] == kind]

    def rewind(self, step: int) -> None:
        """Forget everything recorded after ``step``, as a resumed run will record it again."""
        kept = [record for record in self.read_metrics() if record["step"] <= step]
        self._write(self.metrics_file, "".join(_line(record) for record in kept))
        for file in (*self.rollouts.glob("*-[0-9]*.jsonl"), *self.tokens.glob("*-[0-9]*.jsonl")):
            if _step_of(file) > step:
                file.unlink()

    def write_rollouts(self, name: str, step: int, records: Iterable[dict[str, Any]]) -> None:
        """Write ``rollouts/NAME-STEP.jsonl``: dicts with prompt, answer, text, reward, stop_reason."""
        self._write(self.rollouts / f"{name}-{step:06d}.jsonl", "".join(_line(record) for record in records))

    def read_rollouts(self, name: str) -> dict[int, list[dict[str, Any]]]:
        """Step → records of every ``rollouts/NAME-*.jsonl``, in order of step."""
        files = sorted(self.rollouts.glob(f"{name}-[0-9]*.jsonl"), key=_step_of)
        return {_step_of(file): list(read_jsonl(file)) for file in files}

    def steps_sampled(self) -> int:
        """The last step whose rollouts were kept; 0 if none was."""
        return max((_step_of(file) for file in self.rollouts.glob("step-[0-9]*.jsonl")), default=0)

    def write_tokens(self, step: int, records: Iterable[dict[str, Any]]) -> None:
        """Write ``tokens/step-STEP.jsonl``: a dict a response, in the layout that `drpo inspect` reads
        (docs/inspect.md)."""
        try:
            self.tokens.mkdir(exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        self._write(self.tokens / f"step-{step:06d}.jsonl", "".join(_line(record) for record in records))

    def token_files(self) -> list[Path]:
        """Every ``tokens/step-*.jsonl`` with a record, in order of step."""
        return [file for file in sorted(self.tokens.glob("step-*.jsonl")) if file.stat().st_size]

    def write_inspection(self, html: str) -> None:
        """Write inspection.html."""
        self._write(self.inspection_file, html)

    def write_report(self, html: str) -> None:
        """Write report.html."""
        self._write(self.report_file, html)

    def _write(self, file: Path, text: str) -> None:
        """Atomically: a reader sees the old file or the new one, never half of one."""
        temporary = file.with_name(f".{file.name}.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(file)
        except OSError as error:
            raise self._refused(error) from error

    def _append(self, file: Path, records: Iterable[dict[str, Any]]) -> None:
        try:
            with file.open("a", encoding="utf-8") as stream:
                stream.writelines(_line(record) for record in records)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"cannot write to {self.path}: {error.strerror or error}. Free space or fix its "
                               f"permissions, then continue with `drpo train --resume {self.path}`, or choose "
                               "another directory with --out.")


def _step_of(file: Path) -> int:
    return int(file.stem.rsplit("-", 1)[1])


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_without_nan(record), ensure_ascii=False, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that does not exist is written as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


class JsonLine(NamedTuple):
    """An object of a JSONL file, its line counted from 1, and the byte at which the line ends."""

    number: int
    record: dict[str, Any]
    end: int


def read_jsonl(file: str | os.PathLike[str], ignore_cut_line: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, one a line; empty lines are passed over.

    Raises:
        DataError: a line is not a JSON object; the message names file and line. With ``ignore_cut_line`` a last
            line without its newline is left out instead.
    """
    return (line.record for line in numbered_jsonl(file, ignore_cut_line))


def numbered_jsonl(file: str | os.PathLike[str], ignore_cut_line: bool = False) -> Iterator[JsonLine]:
    """As :func:`read_jsonl`, with where each object stands."""
    end = 0
    # Bytes, decoded line by line: a crash may cut the last line in the middle of a character.
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            end += len(line)
            if not line.strip() or (ignore_cut_line and not line.endswith(b"\n")):
                continue
            try:
                record = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{file}, line {number}: not UTF-8 text (byte {error.start + 1} of the line). "
                                "Each line must be one JSON object.") from error
            except json.JSONDecodeError as error:
                raise DataError(f"{file}, line {number}: not JSON ({error.msg} at column {error.colno}). "
                                "Each line must be one JSON object.") from error
            if not isinstance(record, dict):
                raise DataError(f"{file}, line {number}: a JSON object is needed, got {type(record).__name__}")
            yield JsonLine(number, record, end)
