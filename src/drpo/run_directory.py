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

import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from drpo.errors import CheckpointError
from drpo.files import append_records, json_line, json_text, read_json, read_jsonl, replace_text, writing

#: Bin edges of the histograms that every update records; values outside fall into the first or last bin.
SHIFT_EDGES: tuple[float, ...] = (0.0, *(10 ** (-6 + i / 4) for i in range(25)))
WEIGHT_EDGES: tuple[float, ...] = tuple(-3 + 0.2 * i for i in range(41))


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
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)  # fmt: skip


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

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.is_file()

    def create(self, config: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Make the directory and write its configuration last: with it, the run exists."""
        with self._writing():
            self.rollouts.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
        self.write_manifest(manifest)
        text = yaml.dump(config, Dumper=_ConfigDumper, sort_keys=False, allow_unicode=True)
        self._write(self.config_file, text)

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
        return read_json(self.manifest_file) if self.manifest_file.is_file() else {}

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest."""
        self._write(self.manifest_file, json_text(manifest))

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with self._writing():
            append_records(self.metrics_file, [record])

    def read_metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All whole records, of one ``kind`` if given; a last line cut off by a crash is left out."""
        records = read_jsonl(self.metrics_file, ignore_cut_line=True) if self.metrics_file.is_file() else []
        return [record for record in records if kind is None or record["kind"] == kind]

    def rewind(self, step: int) -> None:
        """Forget everything recorded after ``step``, as a resumed run will record it again."""
        kept = [record for record in self.read_metrics() if record["step"] <= step]
        self._write(self.metrics_file, "".join(json_line(record) for record in kept))
        for file in (*self.rollouts.glob("*-[0-9]*.jsonl"), *self.tokens.glob("*-[0-9]*.jsonl")):
            if _step_of(file) > step:
                file.unlink()

    def write_rollouts(self, name: str, step: int, records: Iterable[dict[str, Any]]) -> None:
        """Write ``rollouts/NAME-STEP.jsonl``: dicts with prompt, answer, text, reward, stop_reason."""
        self._write(self.rollouts / f"{name}-{step:06d}.jsonl", "".join(json_line(record) for record in records))

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
        with self._writing():
            self.tokens.mkdir(exist_ok=True)
        self._write(self.tokens / f"step-{step:06d}.jsonl", "".join(json_line(record) for record in records))

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
        with self._writing():
            replace_text(file, text)

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.path, "Free space or fix its permissions, then continue with `drpo train --resume "
                       f"{self.path}`, or choose another directory with --out.")


def _step_of(file: Path) -> int:
    return int(file.stem.rsplit("-", 1)[1])

