"""TensorBoard: event files in the run directory."""

from __future__ import annotations

import yaml

from drpo.trackers.base import TrackedRun


class TensorBoard:
    """Writes ``RUN/tensorboard``."""

    def start(self, run: TrackedRun) -> str:
        """Open another event file; what a resumed run will log again is marked as superseded."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.directory / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=run.first if run.resumed else None)
        if not run.resumed:
            code_block = "".join(f"    {line}\n" for line in yaml.safe_dump(run.config, sort_keys=False).splitlines())
            self._writer.add_text("config", code_block)
        return f"tensorboard --logdir {folder}"

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Write, at once: what a killed run leaves unwritten below its checkpoint would be missing for good."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, status: str) -> None:
        """Close the file; TensorBoard knows no status."""
        self._writer.close()
