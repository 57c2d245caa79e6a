"""Weights & Biases: online, or offline with WANDB_MODE=offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError
from drpo.trackers.base import RESPONSE_COLUMNS, RESPONSES, Response, TrackedRun


class WandB:
    """One wandb run a run; its local files are in ``RUN/wandb``."""

    def start(self, run: TrackedRun) -> str:
        """Open the run, or go on with it: wandb then ignores steps that it has."""
        import wandb  # pyright: ignore[reportMissingImports]

        mode = wandb.setup().settings.mode
        # wandb would ask for a key on the terminal, which shows the run.
        if mode not in ("offline", "disabled") and wandb.api.api_key is None:
            raise ConfigError(
                "wandb has no API key. Run `wandb login` or set WANDB_API_KEY, or keep the run on this "
                "machine with WANDB_MODE=offline."
            )
        run.directory.mkdir(parents=True, exist_ok=True)  # else wandb writes to a temporary directory instead
        self._run = wandb.init(
            project=run.project,
            id=run.id,
            name=run.name,
            dir=str(run.directory),
            config=run.config,
            resume="allow",
            allow_val_change=run.resumed,  # steps may have been raised
            settings=wandb.Settings(silent=True, console="off"),
        )
        if self._run.offline:
            return f"wandb sync {run.directory / 'wandb'}/offline-run-*"
        return self._run.url or "disabled by WANDB_MODE"

    def log(self, step: int, scalars: dict[str, float], responses: Sequence[Response] = ()) -> None:
        """Hand the figures to wandb's own process; those of one step become one row."""
        row: dict[str, Any] = dict(scalars)
        if responses:
            import wandb  # pyright: ignore[reportMissingImports]

            row[RESPONSES] = wandb.Table(columns=list(RESPONSE_COLUMNS), data=[list(row) for row in responses])
        self._run.log(row, step=step)

    def alert(self, step: int, title: str, text: str) -> None:
        """Let wandb send it by mail or Slack, as the user's settings there say."""
        self._run.alert(title, f"After {step} updates: {text}", level="WARN")

    def keep(self, report: Path) -> None:
        """Upload the report as an artifact."""
        import wandb  # pyright: ignore[reportMissingImports]

        artifact = wandb.Artifact(f"report-{self._run.id}", type="report")
        artifact.add_file(str(report))
        self._run.log_artifact(artifact)

    def finish(self, status: str) -> None:
        """Wait until everything is stored; a run that failed is marked so."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=int(status == "failed"))
