"""Runs the parts one after another, each in a process of its own and for so long at most."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drpo.bench.frame import Settings
from drpo.bench.gpu import PARTS
from drpo.child_process import how_it_ended, kill_group
from drpo.files import read_json

#: Lines of a part's output that the summary shows if it failed.
LAST_LINES = 12
#: A part is not begun with less time than this, in seconds.
LEAST = 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of a part: in a word, in a sentence, and what stands below it: the variants that were skipped, or the
    last lines of its output if it failed."""

    part: str
    status: Literal["ran", "kept", "skipped", "failed"]
    text: str
    details: tuple[str, ...] = ()


def run_parts(
    names: Sequence[str],
    settings: Settings,
    folder: Path,
    again: Sequence[str],
    limit: float | None,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Run the parts ``names`` in order.

    Args:
        names: of :data:`drpo.bench.gpu.PARTS`.
        settings: device, quick, rounds.
        folder: where records and logs are written.
        again: parts that are measured although their record is there.
        limit: seconds for all of them; None: as long as each may take.
        say: told every line of output.
    """
    ends = None if limit is None else time.monotonic() + limit
    outcomes = []
    for name in names:
        if name in again:
            for file in (folder / f"{name}.json", folder / f"{name}.partial.json"):
                file.unlink(missing_ok=True)
        say(f"\n{name}: {PARTS[name].what}")
        outcome = run_part(name, settings, folder, None if ends is None else ends - time.monotonic(), say)
        say(f"{name} {outcome.status}: {outcome.text}")
        outcomes.append(outcome)
    return outcomes


def run_part(name: str, settings: Settings, folder: Path, left: float | None, say: Callable[[str], None]) -> Outcome:
    """Run one part, unless its record is there or something that it needs is not; ``left``: seconds that remain."""
    part, file = PARTS[name], folder / f"{name}.json"
    if file.exists():
        return Outcome(name, "kept", f"{file} is there ({read_json(file)['machine']['date']}); --again {name}")
    if reason := part.obstacle():
        return Outcome(name, "skipped", reason)
    if left is not None and left < LEAST:
        return Outcome(name, "skipped", "no time is left of --limit; the same command goes on here")
    seconds = part.seconds if left is None else min(part.seconds, left)
    started = time.monotonic()
    log = folder / f"{name}.log"
    problem = run_child(command(name, settings, folder), part.environment, log, seconds, say)
    spent = time.monotonic() - started
    if problem is None:
        return Outcome(name, "ran", f"{file}, {spent:.0f} s", tuple(not_measured(file)))
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return Outcome(name, "failed", f"{problem}; {log}", tuple(lines))


def not_measured(file: Path) -> list[str]:
    """Each variant of a record that was skipped, with the reason, once."""
    skipped = [row for row in read_json(file)["rows"] if "skipped" in row]
    return list(dict.fromkeys(f"{row['variant']} skipped: {row['skipped']}" for row in skipped))


def command(name: str, settings: Settings, folder: Path) -> list[str]:
    """What runs the part."""
    found = [sys.executable, *(["-S"] if sys.flags.no_site else []), "-m", "drpo.bench.gpu.part", name]
    found += ["--device", settings.device, "--out", str(folder)]
    if settings.rounds is not None:
        found += ["--rounds", str(settings.rounds)]
    return found + (["--quick"] if settings.quick else [])


def run_child(
    command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float, say: Callable[[str], None]
) -> str | None:
    """Run ``command`` for ``seconds`` at most, its output into ``log`` and to ``say``; what went wrong, or None."""
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    reader = threading.Thread(target=copy_lines, args=(process, log, say), daemon=True)
    reader.start()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s; its finished cases are kept, and the same command goes on after them"
    finally:
        kill_group(process)  # and whatever it started, also when this process is interrupted
        reader.join(timeout=10)
    return None if process.returncode == 0 else how_it_ended(process)


def copy_lines(process: subprocess.Popen[bytes], log: Path, say: Callable[[str], None]) -> None:
    """Every line of the process's output into ``log`` and to ``say``."""
    assert process.stdout is not None
    with log.open("wb") as file:
        for text in process.stdout:
            file.write(text)
            file.flush()
            say(f"  {text.decode('utf-8', 'replace').rstrip()}")


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """What ran, what did not and why, and how what failed ended."""
    width = min(shutil.get_terminal_size((140, 20)).columns, 140)
    lines = ["", "summary"]
    for outcome in outcomes:
        lines.append(f"  {outcome.part:12s} {outcome.status:8s} {outcome.text}")
        lines += [f"    | {text}"[:width] for text in outcome.details]
    return lines
