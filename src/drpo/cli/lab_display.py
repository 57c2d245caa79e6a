"""What a study looks like while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from drpo.cli.printing import PlainConsole
from drpo.lab.directory import State
from drpo.lab.plan import Run
from drpo.lab.runner import Progress, Watcher


@contextmanager
def watch(console: PlainConsole) -> Iterator[Watcher]:
    """A watcher that shows the study on ``console``."""
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield LiveDisplay(console, live)


class PlainDisplay(Watcher):
    """One line when a run starts, ends, or something is to be known."""

    def __init__(self, console: PlainConsole):
        self.console = console
        self.progress = Progress(0, 0, 0, [], None)

    def on_note(self, text: str) -> None:
        self.say(f"note: {text}")

    def on_start(self, run: Run, resumed: bool) -> None:
        self.say(f"{'continues' if resumed else 'starts'}  {run.path}")

    def on_end(self, run: Run, state: State) -> None:
        left = self.progress.seconds_left
        reason = f": {state.reason}" if state.reason else ""
        self.say(f"{state.status}  {run.path}{reason}" + (f"  (left {duration(left)})" if left else ""))

    def on_progress(self, progress: Progress) -> None:
        self.progress = progress

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.say(text)


class LiveDisplay(PlainDisplay):
    """A bar over all runs and a row for each at work; what ended scrolls above it."""

    def __init__(self, console: PlainConsole, live: Live):
        super().__init__(console)
        self.live = live
        self.bar = Bar(
            TextColumn("{task.completed} of {task.total} runs"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rest]}"),
        )
        self.task = self.bar.add_task("", total=None, rest="")

    def on_start(self, run: Run, resumed: bool) -> None:
        """The table shows it."""

    def on_progress(self, progress: Progress) -> None:
        super().on_progress(progress)
        failed = f"{progress.failed} failed  " if progress.failed else ""
        left = "" if progress.seconds_left is None else f"left {duration(progress.seconds_left)}"
        self.bar.update(
            self.task, total=progress.total, completed=progress.finished + progress.failed, rest=failed + left
        )
        table = Table("setting", "arm", "try", "seed", "step", box=None, pad_edge=False)
        for run, step in progress.active:
            table.add_row(run.setting, run.arm, run.attempt or run.phase, str(run.seed), f"{step}/{run.config.steps}")
        self.live.update(Group(self.bar, table))


def duration(seconds: float) -> str:
    """0:42, 12:05, 3:04:10."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
