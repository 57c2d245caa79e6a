"""`drpo bench`."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.table import Table

from drpo.bench import SUITES
from drpo.bench.frame import Row, Settings
from drpo.bench.record import as_json, describe, describe_others, write
from drpo.cli.printing import PlainConsole
from drpo.cpus import Look
from drpo.errors import ConfigError, suggest
from drpo.report.html.quantities import plain
from drpo.train.setup import pick_device

#: Option → the suites without which it would do nothing.
OPTIONS = {"--tokens": ("inspect",), "--model": ("model-step",), "--compile": ("kernels", "sampler")}
#: Of a file or pipe, which has no width: no table is cut.
WIDTH = 180


def run_bench(
    suites: Sequence[str],
    quick: bool,
    out: Path | None,
    rounds: int | None,
    device: str,
    compiled: bool | None,
    tokens: int | None,
    model: Path | None,
) -> None:
    """Measure every suite, show each case as it is done, and write one file a suite."""
    names = choose(suites, {"--tokens": tokens is not None, "--model": model is not None, "--compile": bool(compiled)})
    here = str(pick_device(device))
    settings = Settings(
        device=here,
        quick=quick,
        rounds=rounds,
        tokens=tokens,
        model=model,
        compiled=here.startswith("cuda") if compiled is None else compiled,
    )
    folder = out or Path("bench")
    console = PlainConsole()
    if not console.is_terminal:
        console = PlainConsole(width=WIDTH)
    for name in names:
        file = folder / f"{name}.json"
        record = measure_suite(name, settings, console)
        write(file, record)
        console.say(f"written {file}")
        if name == "curves":
            console.say(f"written {draw_curves(record, file.with_suffix('.png'))}")


def choose(suites: Sequence[str], options: dict[str, bool]) -> list[str]:
    """The suites to run, each once, in the order of :data:`SUITES`.

    Raises:
        ConfigError: no such suite, or an option for a suite that does not run.
    """
    for name in suites:
        if name not in SUITES:
            raise ConfigError(f"unknown suite {name!r}.{suggest(name, SUITES)}")
    chosen = [name for name in SUITES if name in suites or not suites]
    for option, given in options.items():
        if given and not set(OPTIONS[option]) & set(chosen):
            raise ConfigError(
                f"{option} is for the suite {' or '.join(OPTIONS[option])}, which does not run here. "
                f"Name it, or leave {option} out."
            )
    return chosen


def measure_suite(name: str, settings: Settings, console: PlainConsole) -> dict[str, Any]:
    """The record of one suite."""
    console.print(f"\n{name}", style="bold")
    machine, look = describe(settings.device), Look()
    rows: list[Row] = []
    with _progress() as watch:
        for case in importlib.import_module(SUITES[name]).run(settings, watch):
            rows += case
            watch("")
            show_case(case, console)
    machine |= describe_others(look)
    if machine["busy"]:
        console.say(
            f"  other programs used {machine['others']:.1f} CPUs meanwhile: times are longer than on a quiet machine, "
            "and ratios less certain"
        )
    return as_json(name, command_line(), machine, rows)


def command_line() -> str:
    """What the user typed, from the name of the command on."""
    return shlex.join(["drpo", *sys.argv[1:]])


def show_case(rows: Sequence[Row], console: PlainConsole) -> None:
    """A line a variant: seconds with their spread, ratios, and what else was measured."""
    console.say(f"  {rows[0].case}")
    done = [row for row in rows if row.skipped is None]
    if done:
        console.print(Padding(case_table(done), (0, 0, 0, 4)))
    for row in rows:
        if row.skipped is not None:
            console.say(f"    {row.variant} skipped: {row.skipped}")
        if row.note is not None:
            console.say(f"    {row.variant}: {row.note}")


def case_table(rows: Sequence[Row]) -> Table:
    """Only the columns that some row fills."""
    cells = [row_cells(row) for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", header_style="dim", no_wrap=True)
    for row in cells:
        table.add_row(*(row.get(column, "–") for column in columns))
    return table


def row_cells(row: Row) -> dict[str, str]:
    """Column → what it says of ``row``."""
    cells = {
        "": row.variant,
        "seconds": plain(row.median),
        "min": plain(min(row.seconds)),
        "max": plain(max(row.seconds)),
    }
    cells |= {f"× {baseline}": f"{ratio:.2f}" for baseline, ratio in row.ratios.items()}
    if row.tokens_per_second is not None:
        cells["tokens/s"] = f"{row.tokens_per_second:,.0f}"
    return cells | {FIGURES[key][0]: FIGURES[key][1](value) for key, value in row.figures.items() if key in FIGURES}


#: What else was measured → its column and how it is written.
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "peak_bytes": ("peak MB", lambda value: f"{value / 1e6:,.0f}"),
    "bytes_per_token": ("bytes a token", lambda value: f"{value:,.0f}"),
    "file_bytes": ("file MB", lambda value: plain(value / 1e6)),
    "sampling_seconds": ("sampling s", plain),
    "forward_seconds": ("forward s", plain),
    "backward_seconds": ("backward s", plain),
    "optimizer_seconds": ("optimizer s", plain),
    "cpu_seconds": ("CPU s", plain),
    "sampling_share": ("sampling", lambda value: f"{value:.0%}"),
}


def draw_curves(record: dict[str, Any], file: Path) -> Path:
    """The picture of the suite ``curves``.

    Raises:
        WriteError: it cannot be written.
    """
    from drpo.report.figures.cost_curves import cost_curves
    from drpo.report.figures.files import save_figure

    save_figure(cost_curves(record), file)
    return file


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on the terminal's error stream that says what is being measured; nothing elsewhere."""
    console = PlainConsole(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return

    # Not rich's status: a spinner would take turns of its own on the cores.
    def watch(text: str) -> None:
        console.file.write(f"\r\033[2K{text[: console.width - 1]}")
        console.file.flush()

    try:
        yield watch
    finally:
        watch("")
