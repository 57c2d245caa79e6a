"""Measure a training step by number of threads and how they wait, on a quiet machine and beside busy processes.

    python -m tools.measure.threads                   # the demo's step, at most eight minutes
    python -m tools.measure.threads --model DIR       # a step of another model as well, at most eight minutes more

Variants take turns within a round. A busy process is a Python loop that this script starts and ends. Run it where
nothing else runs: the load before the first round is kept with the figures. Writes results/threads.json; `make docs`
makes the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drpo.bench.record import describe
from drpo.cpus import CHOSEN, usable_cpus
from drpo.files import replace_text
from tools import RESULTS

FILE = RESULTS / "threads.json"

#: The environment of each variant; 300,000 is what libgomp takes where nothing is set.
VARIANTS: dict[str, dict[str, str]] = {
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
    "all CPUs, waiting as OpenMP does by itself": {
        "OMP_NUM_THREADS": str(usable_cpus()),
        "GOMP_SPINCOUNT": "300000",
        "KMP_BLOCKTIME": "200",
    },
    "threads=auto": {},
}
BUSY = (0, 1, 2)
COMMON = ["eval_every=0", "eval_examples=1", "eval_samples=1", "device=cpu"]
#: The first step is left out of the figures: it makes what the others find.
DEMO = ["steps=5"]
#: Its rewards may all be 0, which would leave out the backward pass: an objective that has a gradient all the same.
MODEL = [
    "steps=3",
    "prompts_per_step=2",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=32",
    "objective=kl_penalty",
]


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """``count`` processes that use a CPU each, for as long as this is entered."""
    code = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with this script in any case
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def seconds_a_step(settings: list[str], variant: dict[str, str]) -> tuple[list[float], int]:
    """Of every step but the first of a run; and its threads."""
    unset = {*CHOSEN, "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | variant
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "drpo", "train", *settings, *COMMON, "--out", str(run)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        threads = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["threads"]
    steps: dict[int, float] = {}
    for record in records:
        if record["kind"] == "update":
            spent = sum(record["timing"][part] for part in ("sampling", "grading", "training"))
            steps[record["step"]] = steps.get(record["step"], 0.0) + spent
    return [seconds for step, seconds in steps.items() if step > 1], threads


def measure(name: str, settings: list[str], minutes: float, most: int) -> dict[str, Any]:
    """At most ``most`` rounds of all variants beside so many busy processes, none begun that might end too late."""
    began, longest, rounds = time.monotonic(), 0.0, 0
    load = round(os.getloadavg()[0], 2)
    found: dict[tuple[int, str], dict[str, list[Any]]] = {}

    def left() -> float:
        return began + 60 * minutes - time.monotonic()

    while rounds < most and left() > longest:
        start = time.monotonic()
        for busy in BUSY:
            for variant, environment in VARIANTS.items():
                if left() < 0:
                    sys.stderr.write(
                        f"{name}: {minutes:g} minutes are over; what is left of this round was not run. "
                        "Raise --minutes, or wait until nothing else runs.\n"
                    )
                    return result(settings, load, rounds, found)
                with busy_processes(busy):
                    steps, threads = seconds_a_step(settings, environment)
                cell = found.setdefault((busy, variant), {"seconds": [], "threads": []})
                cell["seconds"].append(statistics.mean(steps))
                cell["threads"].append(threads)
                sys.stderr.write(f"{name}, {busy} busy, {variant}: {statistics.mean(steps):.3f} s, threads={threads}\n")
        rounds, longest = rounds + 1, max(longest, time.monotonic() - start)
    return result(settings, load, rounds, found)


def result(
    settings: list[str], load: float, rounds: int, found: dict[tuple[int, str], dict[str, list[Any]]]
) -> dict[str, Any]:
    """What results/threads.json holds of one model: the settings, the load before, whole rounds, and every cell."""
    cells = [{"busy": busy, "variant": variant, **cell} for (busy, variant), cell in found.items()]
    return {"settings": settings + COMMON, "load_before": load, "rounds": rounds, "cells": cells}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Hugging Face directory, measured besides the demo")
    parser.add_argument("--minutes", type=float, default=8.0, help="for each of the two; default 8")
    parser.add_argument("--rounds", type=int, default=3, help="at most; default 3")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of all runs, besides their own")
    arguments = parser.parse_args()
    budget = (arguments.minutes, arguments.rounds)
    runs = {"demo": measure("demo", [*DEMO, *arguments.settings], *budget)}
    write(arguments.out, runs)
    if arguments.model:
        label = parameters(Path(arguments.model))
        settings = [f"model={arguments.model}", *MODEL, *arguments.settings]
        runs[label] = measure(label, settings, *budget) | {"settings": MODEL + COMMON}
        write(arguments.out, runs)


def write(file: Path, runs: dict[str, Any]) -> None:
    """What was measured so far, with the machine and the date."""
    replace_text(file, json.dumps({"schema": 1, "machine": describe(), "runs": runs}, indent=2) + "\n")


def parameters(directory: Path) -> str:
    """A model by its size."""
    from safetensors import safe_open

    total = 0
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(str(file), "pt") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
        total += sum(math.prod(shape) for shape in shapes)
    return f"{total / 1e6:.0f} M parameters"


if __name__ == "__main__":
    main()
