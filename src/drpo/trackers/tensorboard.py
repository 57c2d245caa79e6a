"""TensorBoard: event files in the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from drpo.trackers.base import RESPONSE_COLUMNS, RESPONSES, Response, TrackedRun


class TensorBoard:
    """Writes ``RUN/tensorboard``."""

    def start(self, run: TrackedRun) -> str:
        """Open another event file; what a resumed run will log again is marked as superseded."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.directory / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=run.first if run.resumed else None)
        if not run.resumed:
            self._writer.add_text("config", _as_code(yaml.safe_dump(run.config, sort_keys=False)))
        return f"tensorboard --logdir {folder}"

    def log(self, step: int, scalars: dict[str, float], responses: Sequence[Response] = ()) -> None:
        """Write, at once: what a killed run leaves unwritten below its checkpoint would be missing for good."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        if responses:
            self._writer.add_text(RESPONSES, "\n---\n\n".join(map(_response, responses)), step)
        self._writer.flush()

    def alert(self, step: int, title: str, text: str) -> None:
        """Write it among the texts: TensorBoard sends nothing."""
        self._writer.add_text("alerts", _as_code(f"{title}\n{text}"), step)
        self._writer.flush()

    def keep(self, report: Path) -> None:
        """Name the report among the texts: it lies beside the event files."""
        self._writer.add_text("report", _as_code(str(report)))

    def finish(self, status: str) -> None:
        """Close the file; TensorBoard knows no status."""
        self._writer.close()


def _response(response: Response) -> str:
    """Its fields as code: TensorBoard would take what a model wrote for Markdown."""
    return "\n".join(
        f"**{column}**\n\n{_as_code(str(value))}" for column, value in zip(RESPONSE_COLUMNS, response, strict=True)
    )


def _as_code(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines()) + "\n"
