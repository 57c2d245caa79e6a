"""`drpo train`."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from drpo.allocator import keep_freed_memory
from drpo.cli.display import watch
from drpo.cli.memory import show_memory
from drpo.cli.printing import PlainConsole
from drpo.cli.prompts import show_prompts
from drpo.cli.settings import refuse_data_file, refuse_options
from drpo.errors import ConfigError
from drpo.report import write_report
from drpo.run_checkpoints import best_checkpoint
from drpo.run_directory import RunDirectory
from drpo.train.branch import Branch, make_branch
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.observer import Forwarding, Observer, Summary
from drpo.train.resume import resumed_config

#: The exit status of a run that stop_on_collapse ended.
COLLAPSED = 3
OUTCOME_STYLES = {"improved": "bold green", "unchanged": "bold yellow", "worse": "bold red", "unknown": "bold"}


def run_train(settings: list[str], out: Path | None, resume: Path | None, origin: str | None, dry_run: bool) -> None:
    """Start, continue or branch a run, show it, and write its report.

    Args:
        settings: as typed: a configuration file and ``key=value`` changes.
        out: the directory of a new run.
        resume: the directory of a run to continue.
        origin: the run, and which of its checkpoints, to branch from.
        dry_run: show the settings of a new run instead.
    """
    console = PlainConsole()
    file, overrides = split_settings(settings)
    _check_options(file, out, resume, origin, dry_run)
    branch = None
    if resume is not None:
        run, config = RunDirectory(resume), resumed_config(RunDirectory(resume), overrides)
    else:
        if origin is not None:
            branch = make_branch(origin, overrides, lambda text: PlainConsole(stderr=True).say(f"note: {text}"))
        config, sources = (branch.config, branch.sources) if branch else load_config(file, overrides)
        if dry_run:
            _show_settings(console, config, sources, branch)
            return
        run = RunDirectory(out or _new_directory(config))
    keep_freed_memory()
    with watch(console) as observer, _finish_step_on_signal(observer.on_note) as stop_requested:
        reporting = _Reporting(observer, run)
        summary = train(config, run, reporting, resume is not None, stop_requested, branch)
    if not reporting.written:  # nothing was left to do
        write_report(run)
    stopped = config.stop_on_collapse and summary.status == "interrupted" and summary.outcome.collapsed
    _say_goodbye(console, run, summary, stopped)
    if stopped:
        sys.exit(COLLAPSED)


class _Reporting(Forwarding):
    """Writes the report as soon as the run has ended, so that trackers can keep it."""

    def __init__(self, observer: Observer, run: RunDirectory):
        super().__init__(observer)
        self.run, self.written = run, False

    def on_end(self, status: str) -> None:
        super().on_end(status)
        # With an error, or a second Ctrl-C, on its way nothing more is written: it is what the user has to see.
        if sys.exc_info()[0] is None:
            write_report(self.run)
            self.written = True


def _check_options(file: Path | None, out: Path | None, resume: Path | None, origin: str | None, dry_run: bool) -> None:
    """Refuse options that contradict each other."""
    if resume is not None and (file is not None or out is not None or origin is not None or dry_run):
        raise ConfigError(
            "--resume takes its configuration and directory from the run. Leave out the "
            "configuration file, --out, --from and --dry-run."
        )
    if origin is not None and file is not None:
        raise ConfigError(
            f"--from takes its configuration from the run. Leave out {file}, and give changes as key=value."
        )


def _show_settings(console: PlainConsole, config: TrainConfig, sources: dict[str, str], branch: Branch | None) -> None:
    """What a run would do."""
    for note in branch.notes()[:1] if branch else ():
        console.say(f"note: {note}\n")
    console.print(_settings_table(config, sources))
    if branch and not config.lora:  # the base itself may be gone
        config = config.model_copy(update={"model": str(branch.checkpoint)})
    show_memory(console, config)
    show_prompts(console, config)


def split_settings(settings: list[str]) -> tuple[Path | None, list[str]]:
    """The configuration file, if one is given, and the ``key=value`` overrides.

    Raises:
        ConfigError: more than one file, a data file, or an option that is none.
    """
    refuse_options(settings, ("--out", "--resume", "--from", "--stop-on-collapse", "--dry-run", "--debug"))
    files = [setting for setting in settings if _is_file(setting)]
    if len(files) > 1:
        raise ConfigError(
            f"only one configuration file can be given, got {', '.join(files)}. Changes are written "
            "key=value, for example steps=200."
        )
    for file in files:
        refuse_data_file(Path(file))
    return (Path(files[0]) if files else None), [setting for setting in settings if not _is_file(setting)]


def _is_file(argument: str) -> bool:
    """Whether it names a file: it has no ``=``, or a slash before it, as no key does (runs/rate=0.1/seed-0.yaml)."""
    key, equals, _ = argument.partition("=")
    return not equals or "/" in key


def _new_directory(config: TrainConfig) -> Path:
    base = Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{config.objective.name}"
    path, copy = base, 1
    while path.exists():
        copy += 1
        path = base.with_name(f"{base.name}-{copy}")
    return path


@contextmanager
def _finish_step_on_signal(say: Any) -> Iterator[Any]:
    """The first Ctrl-C (or SIGTERM) asks for a checkpoint after the current step, a second one stops at once."""
    asked = False
    message = "stopping after this step, with a checkpoint; press Ctrl-C again to stop at once"
    # The signal may come while this very thread is printing, and a stream cannot be entered twice.
    speaker = threading.Thread(target=say, args=(message,))

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        speaker.start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        if asked:
            speaker.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _settings_table(config: TrainConfig, sources: dict[str, str]) -> Table:
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for key, value in config.resolved().items():
        for sub, leaf in value.items() if isinstance(value, dict) and value else [(None, value)]:
            name = key if sub is None else f"{key}.{sub}"
            table.add_row(name, str(leaf), sources.get(name, "default"))
    return table


def _say_goodbye(console: PlainConsole, run: RunDirectory, summary: Summary, stopped: bool) -> None:
    """How the run ended; ``stopped``: by stop_on_collapse, which has said how to go on."""
    found = summary.outcome
    console.print(Text.assemble("\n", (found.sentence, OUTCOME_STYLES[found.kind])))
    for line in (found.reason, found.try_next):
        if line:
            console.say(line)
    console.say(f"run     {run.path} ({summary.status} after step {summary.step})")
    best = best_checkpoint(run)
    if best is not None and best["step"] != summary.step:
        console.say(f"best    step {best['step']}, held-out accuracy {best['accuracy']:.3f} (--step best)")
    console.say(f"report  {run.report_file}")
    if summary.status == "interrupted" and not stopped:
        console.say(f"resume  drpo train --resume {run.path}")
