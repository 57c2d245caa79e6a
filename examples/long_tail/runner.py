"""Runs what a study still lacks, one run after another, each kept as soon as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from examples.long_tail import records
from examples.long_tail.records import Run
from examples.long_tail.study import ARMS, Cell, Plan, Scores, Setting, at_rate, chosen, shared_rate, tuning_cells
from examples.long_tail.training import make_world, train

Watch = Callable[[str], None]


def run_setting(setting: Setting, plan: Plan, table: Path, watch: Watch) -> list[Run]:
    """All runs of a setting: those in ``table`` (a CSV file) are kept, the others made and appended."""
    runs = records.read(table)
    records.rewrite(table, runs)

    def complete(cells: Iterable[Cell], seeds: Iterable[int]) -> None:
        cells, done = list(cells), {(run.cell, run.seed) for run in runs}
        todo = [(cell, seed) for seed in seeds for cell in cells if (cell, seed) not in done]
        for place, (cell, seed) in enumerate(todo, start=1):
            run = run_once(setting, plan, cell, seed)
            records.append(table, run)
            runs.append(run)
            watch(
                f"{table.stem} {place}/{len(todo)}: {cell.arm} {cell.threshold:g}, rate {cell.learning_rate:g}, "
                f"seed {seed}: {run.start:.3f} → {run.final:.3f}{', ' * bool(run.outcome.reason)}"
                f"{run.outcome.reason}"
            )

    complete(tuning_cells(setting), plan.tuning_seeds)
    complete(dict.fromkeys(evaluated(tuned_scores(runs, plan))), plan.seeds)
    return runs


def run_once(setting: Setting, plan: Plan, cell: Cell, seed: int) -> Run:
    """One run, with the world of its seed."""
    world = make_world(setting.space, plan.schedule, seed)
    started = time.perf_counter()
    objective = ARMS[cell.arm].make(cell.threshold)
    outcome = train(world, setting.policy, objective, cell.learning_rate, plan.schedule, seed)
    return Run(cell, seed, time.perf_counter() - started, outcome)


def tuned_scores(runs: Iterable[Run], plan: Plan) -> Scores:
    """Cell → its mean final value over the tuning seeds."""
    finals: dict[Cell, list[float]] = {}
    for run in runs:
        if run.seed in plan.tuning_seeds:
            finals.setdefault(run.cell, []).append(run.final)
    return {cell: float(np.mean(values)) for cell, values in finals.items()}


def evaluated(tuned: Scores) -> list[Cell]:
    """What runs on the evaluation seeds: each arm at its best, and at the shared rate."""
    return [*chosen(tuned).values(), *at_rate(tuned, shared_rate(tuned)).values()]
