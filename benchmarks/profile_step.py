"""Where the time of one training step goes, in per cent, on the demo's model and problems.

    python benchmarks/profile_step.py                       # prints the table
    python benchmarks/profile_step.py --json results/bench/profile.json   # what `make bench` does

A step is a rollout batch of 16 × 8 responses with four updates, as in the demo. Clocks stand around the functions that
do the work; time that one of them spends inside another counts for the inner one alone, so that the shares add up. The
learning rate is 1e-9, so that responses keep their length and a part of the groups its differing rewards.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from drpo.bench.clocks import Clocks, of_trainer
from drpo.bench.record import describe
from drpo.run_directory import RunDirectory
from drpo.tasks.grading.grader import Grader
from drpo.train.config_layers import load_config
from drpo.train.determinism import deterministic_algorithms
from drpo.train.loop import Trainer
from drpo.train.setup import build

WARM_UP = 2


def profile(steps: int) -> tuple[float, dict[str, float]]:
    """Median seconds of a step, and label → share of all the time."""
    clocks = Clocks()
    functions = of_trainer()
    clocks.put_around(functions)
    config, _ = load_config(None, ["learning_rate=1e-9", "device=cpu"])
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        run.create(config.as_dict(), {})
        parts = build(config)
        with deterministic_algorithms(), Grader(parts.task, config.grading_time_limit) as grader:
            trainer = Trainer(config, run, parts, grader)
            for step in range(1, WARM_UP + steps + 1):
                if step == WARM_UP + 1:
                    clocks.take()
                started = time.perf_counter()
                rollout = trainer.roll_out(step)
                trainer.update(rollout, step)
                taken.append(time.perf_counter() - started)
    total = sum(taken[WARM_UP:])
    shares = {label: clocks.seconds.get(label, 0.0) / total for label, _, _ in functions}
    shares["everything else"] = 1.0 - sum(shares.values())
    return statistics.median(taken[WARM_UP:]), shares


def main() -> None:
    """Profile, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    seconds, shares = profile(arguments.steps)
    print(f"{seconds:.3f} s a step, {torch.get_num_threads()} threads")
    for label, share in shares.items():
        print(f"{label:45s} {share:6.1%}")
    if arguments.json:
        figures = {"machine": describe(), "steps": arguments.steps, "seconds": seconds, "shares": shares}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
