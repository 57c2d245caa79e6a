"""Trackio: a local database (in TRACKIO_DIR), or the Space or server that its own environment variables name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drpo.trackers.base import RESPONSE_COLUMNS, RESPONSES, Response, TrackedRun


class Trackio:
    """One trackio run a run."""

    def start(self, run: TrackedRun) -> str:
        """Open the run, or go on with it."""
        import trackio  # pyright: ignore[reportMissingImports]

        self._run = trackio.init(
            project=run.project,
            name=run.name,
            config=run.config,
            resume="allow" if run.resumed else "never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        # Trackio would keep a row that is logged again beside the first one, and tells nowhere else how far a run is.
        self._next_step: int = getattr(self._run, "_next_step", 0) if run.resumed else 0
        return f"trackio show --project {run.project}"

    def log(self, step: int, scalars: dict[str, float], responses: Sequence[Response] = ()) -> None:
        """Queue a row, unless the run had got this far before it was resumed."""
        if step < self._next_step:
            return
        row: dict[str, Any] = dict(scalars)
        if responses:
            import trackio  # pyright: ignore[reportMissingImports]

            data = [[*map(str, texts), reward, reason] for *texts, reward, reason in responses]
            row[RESPONSES] = trackio.Table(columns=list(RESPONSE_COLUMNS), data=data)
        self._run.log(row, step=step)

    def alert(self, step: int, title: str, text: str) -> None:
        """Queue an alert, which trackio prints, shows, and sends to TRACKIO_WEBHOOK_URL."""
        if step >= self._next_step:
            self._run.alert(title, text, step=step)

    def keep(self, report: Path) -> None:
        """Copy the report into the run's artifacts."""
        import trackio  # pyright: ignore[reportMissingImports]

        trackio.log_artifact(report, name=f"report-{self._run.name}", type="report")

    def finish(self, status: str) -> None:
        """Write what is queued; trackio knows no status."""
        import trackio  # pyright: ignore[reportMissingImports]

        trackio.finish()  # not the run's own: trackio would finish it once more at exit
