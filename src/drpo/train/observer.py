"""What a training run tells whoever watches it. The default says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.run_directory import RunDirectory
from drpo.train.config import TrainConfig
from drpo.train.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended: ``finished`` or ``interrupted`` after ``step``; accuracies are held-out and sampled.

    ``outcome`` compares them.
    """

    status: str
    step: int
    accuracy_before: float | None
    accuracy_after: float | None
    outcome: Outcome


class Observer:
    """Override what you want to see."""

    def on_start(self, config: TrainConfig, run: RunDirectory, step: int) -> None:
        """Training begins after ``step`` (0, or where a resumed run stands)."""

    def on_step(self, records: list[dict[str, Any]]) -> None:
        """A rollout batch was trained on; ``records`` are its updates, as metrics.jsonl got them."""

    def on_evaluation(self, record: dict[str, Any]) -> None:
        """Held-out accuracy was measured."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint was written."""

    def on_note(self, text: str) -> None:
        """Something the user should know."""

    def on_warning(self, text: str) -> None:
        """Something is wrong with the run, and what to try."""
        self.on_note(text)

    def on_end(self, status: str) -> None:
        """The run ended as ``finished``, ``interrupted`` or ``failed``, and its manifest says so."""


class Forwarding(Observer):
    """Passes everything on to ``observer``."""

    def __init__(self, observer: Observer):
        self.observer = observer

    def on_start(self, config: TrainConfig, run: RunDirectory, step: int) -> None:
        self.observer.on_start(config, run, step)

    def on_step(self, records: list[dict[str, Any]]) -> None:
        self.observer.on_step(records)

    def on_evaluation(self, record: dict[str, Any]) -> None:
        self.observer.on_evaluation(record)

    def on_checkpoint(self, path: Path) -> None:
        self.observer.on_checkpoint(path)

    def on_note(self, text: str) -> None:
        self.observer.on_note(text)

    def on_warning(self, text: str) -> None:
        self.observer.on_warning(text)

    def on_end(self, status: str) -> None:
        self.observer.on_end(status)
