"""Trackio: a local database (in TRACKIO_DIR), or the Space or server that its own environment variables name."""

from __future__ import annotations

from drpo.trackers.base import TrackedRun


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

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Queue a row, unless the run had got this far before it was resumed."""
        if step >= self._next_step:
            self._run.log(scalars, step=step)

    def finish(self, status: str) -> None:
        """Write what is queued; trackio knows no status."""
        import trackio  # pyright: ignore[reportMissingImports]

        trackio.finish()  # not the run's own: trackio would finish it once more at exit
