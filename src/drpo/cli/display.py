"""What a training run looks like: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from drpo.run_directory import RunDirectory
from drpo.train.config import TrainConfig
from drpo.train.observer import Observer


@contextmanager
def watch(console: Console) -> Iterator[Observer]:
    """An observer that shows the run on ``console``."""
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        yield LiveDisplay(console, live)


class PlainDisplay(Observer):
    """One line a step, an evaluation, a note."""

    def __init__(self, console: Console):
        self.console = console
        self.updates: list[dict[str, Any]] = []
        self.heldout: float | None = None
        self.first = self.step = 0
        self.started = time.monotonic()

    def on_start(self, config: TrainConfig, run: RunDirectory, step: int) -> None:
        self.config, self.first, self.step = config, step, step
        self.say(f"{config.make_objective()} on {config.task.name}, model {config.model}, {config.steps} steps of "
                 f"{config.prompts_per_step} × {config.group_size} responses; run {run.path}")
        if step:
            self.say(f"continuing after step {step}")
        self.started = time.monotonic()

    def on_update(self, record: dict[str, Any]) -> None:
        if self.updates and self.updates[-1]["step"] != record["step"]:
            self.updates = []
        self.updates.append(record)
        if record["update"] == 0:
            self.step = record["step"] - 1
        if len(self.updates) == self.config.updates_per_step:
            self.step = record["step"]
            self.show_step(self.figures())

    def on_evaluation(self, record: dict[str, Any]) -> None:
        self.heldout = record["accuracy"]
        self.say(f"step {record['step']}: held-out accuracy {record['accuracy']:.3f} "
                 f"({record['correct']} of {record['samples']} sampled responses)")

    def on_checkpoint(self, path: Path) -> None:
        self.say(f"checkpoint {path}")

    def on_note(self, text: str) -> None:
        self.say(f"note: {text}")

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show_step(self, figures: dict[str, str]) -> None:
        """Print the figures of a finished step."""
        self.say("  ".join(f"{name} {value}" for name, value in figures.items()))

    def figures(self) -> dict[str, str]:
        """What the last step measured, over all its tokens."""
        weights = [record["tokens"] for record in self.updates]

        def mean(name: str) -> float:
            known = [(r[name], w) for r, w in zip(self.updates, weights, strict=True) if r[name] == r[name]]
            return sum(v * w for v, w in known) / sum(w for _, w in known) if known else float("nan")

        seconds = sum(sum(r["timing"][part] for part in ("sampling", "grading", "training")) for r in self.updates)
        sequences = sum(record["sequences"] for record in self.updates)
        reward = sum(record["reward"] * record["sequences"] for record in self.updates) / sequences
        left = (self.config.steps - self.step) * (time.monotonic() - self.started) / max(self.step - self.first, 1)
        return {
            "step": f"{self.step}/{self.config.steps}",
            "reward": f"{reward:.3f}",
            "held-out": "–" if self.heldout is None else f"{self.heldout:.3f}",
            "|π−μ|": f"{mean('shift'):.4f}",
            "p99": f"{max(record['shift_p99'] for record in self.updates):.3f}",
            f"beyond δ={self.config.delta:g}": f"{mean('beyond_delta'):.2%}",
            "w<0": f"{mean('corrective_share'):.2%}",
            "tokens/s": f"{sum(weights) / seconds:,.0f}",
            "left": f"{int(left // 60)}:{int(left % 60):02d}",
        }


class LiveDisplay(PlainDisplay):
    """The same figures in a table that is redrawn, under a bar; notes scroll above it."""

    def __init__(self, console: Console, live: Live):
        super().__init__(console)
        self.live = live
        self.bar = Progress(TextColumn("step {task.completed}/{task.total}"), BarColumn(bar_width=None))

    def on_start(self, config: TrainConfig, run: RunDirectory, step: int) -> None:
        super().on_start(config, run, step)
        self.task = self.bar.add_task("", total=config.steps, completed=step)
        self.live.update(self.bar)

    def show_step(self, figures: dict[str, str]) -> None:
        self.bar.update(self.task, completed=self.step)
        shown = {name: value for name, value in figures.items() if name != "step"}
        table = Table(*shown, box=None, pad_edge=False, expand=True)
        table.add_row(*shown.values())
        self.live.update(Group(self.bar, table))
