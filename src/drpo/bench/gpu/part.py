"""`python -m drpo.bench.gpu.part NAME` measures one part, and writes its record after every case.

While cases are left the record is NAME.partial.json; NAME.json means that all of them were measured. Cases that the
partial record already has are not measured again.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from drpo.bench.frame import FAILED, Row, Settings, Watch, one_line, release_memory
from drpo.bench.gpu import PARTS, is_failure
from drpo.bench.record import as_json, describe, describe_others, row_from_json, write
from drpo.child_process import die_with_parent
from drpo.cpus import Look
from drpo.files import read_json


def main() -> int:
    """Measure, print rows as they come; 1 if some case failed."""
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PARTS)
    parser.add_argument("--device", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    on_gpu = arguments.device.startswith("cuda")
    settings = Settings(device=arguments.device, quick=arguments.quick, rounds=arguments.rounds, compiled=on_gpu)
    return measure_part(arguments.name, settings, arguments.out)


def measure_part(name: str, settings: Settings, folder: Path) -> int:
    """All cases of the part ``name``, into a file in ``folder``; 1 if one of them failed."""
    file, partial = folder / f"{name}.json", folder / f"{name}.partial.json"
    command, machine = f"python -m drpo.bench.gpu.part {' '.join(sys.argv[1:])}", describe(settings.device)
    rows, look = finished_rows(partial), Look()
    done = {row.case for row in rows}
    for title, work in importlib.import_module(f"drpo.bench.gpu.{name}").cases(settings):
        if title in done:
            say(f"{title}: measured before")
            continue
        found = measure_case(title, work)
        say("\n".join(map(line, found)))
        rows += found
        machine |= describe_others(look)
        write(partial, as_json(f"gpu {name}", command, machine, rows))  # a borrowed card may be called back
    if any(map(is_failure, rows)):
        return 1
    if not rows:
        say("no case was measured")
        return 1
    os.replace(partial, file)
    return 0


def finished_rows(partial: Path) -> list[Row]:
    """The rows of an earlier call's record, but those of cases in which something failed."""
    if not partial.exists():
        return []
    rows = [row_from_json(values) for values in read_json(partial)["rows"]]
    failed = {row.case for row in rows if is_failure(row)}
    return [row for row in rows if row.case not in failed]


def measure_case(title: str, work: Callable[[Watch], list[Row]]) -> list[Row]:
    """The rows of a case. If its inputs do not fit, or something fails beside its variants, that is its one row."""
    try:
        return work(watch)
    except torch.OutOfMemoryError:
        reason = "out of memory"
    except Exception as error:
        traceback.print_exc()
        reason = FAILED + one_line(error)
    release_memory()
    return [Row(case=title, variant="inputs", sizes={}, skipped=reason)]


def line(row: Row) -> str:
    """What a row says on the terminal."""
    head = f"{row.case}  {row.variant:24s}"
    if row.skipped is not None:
        return f"{head} skipped: {row.skipped}"
    parts = [f"{row.median * 1e3:9.2f} ms ({min(row.seconds) * 1e3:.2f} to {max(row.seconds) * 1e3:.2f})"]
    parts += [f"{ratio:.2f} × {name}" for name, ratio in row.ratios.items()]
    parts += [text.format(row.figures[name]) for name, text in SHOWN.items() if name in row.figures]
    if "peak_bytes" in row.figures:
        parts.append(f"peak {row.figures['peak_bytes'] / 1e6:,.0f} MB")
    if row.tokens_per_second is not None:
        parts.append(f"{row.tokens_per_second:,.0f} tokens/s")
    if row.note is not None:
        parts.append(row.note)
    return "  ".join([head, *parts])


#: Figure → how it is shown.
SHOWN = {
    "tflops": "{:.1f} TFLOP/s",
    "gemm_share": "{:.1%} of the card's rate",
    "error": "error {:.1e}",
    "shared_bytes": "{:,.0f} bytes of shared memory",
    "passed": "{:.0f} passed",
    "skipped": "{:.0f} skipped",
}


def watch(text: str) -> None:
    """What is being measured."""
    say(f"  {text}")


def say(text: str) -> None:
    """A line of output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
