"""What a training run looks like: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from drpo.cli.printing import PlainConsole
from drpo.run_directory import RunDirectory
from drpo.train.config import TrainConfig
from drpo.train.observer import Observer

BARS = "▁▂▃▄▅▆▇█"
#: Steps and evaluations of the live history: both lines fit into 80 columns.
HISTORY, EVALUATIONS = 50, 3


@contextmanager
def watch(console: PlainConsole) -> Iterator[Observer]:
    """An observer that shows the run on ``console``."""
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        yield LiveDisplay(console, live)


class PlainDisplay(Observer):
    """One line a step, an evaluation, a note."""

    def __init__(self, console: PlainConsole):
        self.console = console
        self.measured: list[tuple[int, float]] = []
        self.first = self.step = 0
        self.started = time.monotonic()

    def on_start(self, config: TrainConfig, run: RunDirectory, step: int) -> None:
        self.config, self.first, self.step = config, step, step
        self.say(
            f"{config.make_objective()} on {config.task.name}, model {config.model}, {config.steps} steps of "
            f"{config.prompts_per_step} × {config.group_size} responses; run {run.path}"
        )
        if step:
            self.say(f"continuing after step {step}")
        self.started = time.monotonic()

    def on_step(self, records: list[dict[str, Any]]) -> None:
        self.step = records[-1]["step"]
        self.show_step(self.figures(records))

    def on_evaluation(self, record: dict[str, Any]) -> None:
        self.measured.append((record["step"], record["accuracy"]))
        self.say(
            f"step {record['step']}: held-out accuracy {record['accuracy']:.3f} "
            f"({record['correct']} of {record['samples']} sampled responses)"
        )

    def on_checkpoint(self, path: Path) -> None:
        self.say(f"checkpoint {path}")

    def on_note(self, text: str) -> None:
        self.say(f"note: {text}")

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.say(text)

    def show_step(self, figures: dict[str, str]) -> None:
        """Print the figures of a finished step."""
        self.say("  ".join(f"{name} {value}" for name, value in figures.items()))

    def figures(self, updates: list[dict[str, Any]]) -> dict[str, str]:
        """What a step's updates measured, over all its tokens."""
        tokens = sum(record["tokens"] for record in updates)
        sequences = sum(record["sequences"] for record in updates)
        seconds = sum(sum(r["timing"][part] for part in ("sampling", "grading", "training")) for r in updates)
        left = (self.config.steps - self.step) * (time.monotonic() - self.started) / (self.step - self.first)
        return {
            "step": f"{self.step}/{self.config.steps}",
            "reward": f"{sum(record['reward'] * record['sequences'] for record in updates) / sequences:.3f}",
            "held-out": _at(*self.measured[-1]) if self.measured else "–",
            "|π−μ|": f"{_token_mean(updates, 'shift'):.4f}",
            "p99": f"{max(record['shift_p99'] for record in updates):.3f}",
            f"beyond δ={updates[0]['delta']:g}": f"{_token_mean(updates, 'beyond_delta'):.2%}",
            "w<0": f"{_token_mean(updates, 'corrective_share'):.2%}",
            "tokens/s": f"{tokens / seconds:,.0f}",
            "left": f"{int(left // 60)}:{int(left % 60):02d}",
        }


def _at(step: int, accuracy: float) -> str:
    """A held-out accuracy with the step after which it was measured."""
    return f"{accuracy:.3f} (step {step})"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` values as bars, the lowest at the bottom and the highest at the top."""
    shown = [value for value in values if math.isfinite(value)][-width:]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1) + 0.5) if span else 0] for value in shown)


def _token_mean(updates: list[dict[str, Any]], name: str) -> float:
    """The mean over updates by tokens; updates without the figure (no advantage but 0) do not count."""
    known = [(record[name], record["tokens"]) for record in updates if not math.isnan(record[name])]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else 0.0


class LiveDisplay(PlainDisplay):
    """The same figures in a table that is redrawn, under a bar and above a short history; notes scroll above it."""

    def __init__(self, console: PlainConsole, live: Live):
        super().__init__(console)
        self.live = live
        self.shown: dict[str, str] = {}
        self.rewards: list[float] = []
        self.bar = Progress(TextColumn("step {task.completed}/{task.total}"), BarColumn(bar_width=None))

    def on_start(self, config: TrainConfig, run: RunDirectory, step: int) -> None:
        super().on_start(config, run, step)
        self.task = self.bar.add_task("", total=config.steps, completed=step)
        self.live.update(self.bar)

    def on_evaluation(self, record: dict[str, Any]) -> None:
        super().on_evaluation(record)
        if self.shown:
            self.draw({**self.shown, "held-out": _at(*self.measured[-1])})

    def show_step(self, figures: dict[str, str]) -> None:
        self.bar.update(self.task, completed=self.step)
        self.rewards.append(float(figures["reward"]))
        self.draw({name: value for name, value in figures.items() if name != "step"})

    def draw(self, shown: dict[str, str]) -> None:
        """Replace the table."""
        self.shown = shown
        table = Table(*shown, box=None, pad_edge=False, expand=True)
        table.add_row(*shown.values())
        self.live.update(Group(self.bar, table, self.history()))

    def history(self) -> Text:
        """The course of the reward, and the last evaluations."""
        course = sparkline(self.rewards, HISTORY)
        lines = [f"reward    {course} {min(self.rewards[-HISTORY:]):.3f} to {max(self.rewards[-HISTORY:]):.3f}"]
        if self.measured:
            lines.append(f"held-out  {' → '.join(_at(*one) for one in self.measured[-EVALUATIONS:])}")
        return Text("\n".join(lines), style="dim", no_wrap=True, overflow="ellipsis")
