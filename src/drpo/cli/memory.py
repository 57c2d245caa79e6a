"""The memory that a run would take, on the terminal."""

from __future__ import annotations

from rich.table import Table

from drpo.cli.printing import PlainConsole
from drpo.errors import ConfigError
from drpo.train.config import TrainConfig
from drpo.train.memory.report import report_memory, size
from drpo.train.setup import pick_device


def show_memory(console: PlainConsole, config: TrainConfig) -> None:
    """A row for all that takes memory, the peak, and what to change if it does not fit; nothing is loaded."""
    try:
        device = pick_device(config.device)
        report = report_memory(config, device)
    except ConfigError as error:  # the settings were what was asked for; a run would stop at this
        console.say(f"\nmemory: cannot be estimated. {error}")
        return
    table = Table("memory", "", "when", "how", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for part in report.need.parts:
        table.add_row(part.name, size(part.bytes), part.when, part.how)
    for phase in ("training", "sampling"):
        table.add_row(
            f"peak, {phase}",
            size(report.need.during(phase)),
            "",
            "" if phase == "training" else f"prompts of {report.prompt_tokens} tokens assumed",
        )
    table.add_row(f"there, on {device}", "unknown" if report.room is None else size(report.room), "", "")
    console.print()
    console.print(table)
    if warning := report.warning():
        console.say(f"warning: {warning}")
