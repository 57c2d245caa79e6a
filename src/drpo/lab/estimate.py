"""How long a study will take, from a measured step of each setting."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drpo.errors import TrainingError
from drpo.lab.directory import StudyDirectory
from drpo.lab.plan import Run
from drpo.lab.workers import LocalWorkers
from drpo.run_directory import RunDirectory

#: Steps that are run; the last is timed, as the first is slowed by what happens once.
STEPS = 2


@dataclass(frozen=True)
class Cost:
    """Seconds of a run's parts."""

    start: float
    step: float
    evaluation: float
    final: float

    def of(self, run: Run) -> float:
        """The seconds of a whole run."""
        between = self.evaluation * (len(run.evaluations) - 1)
        return self.start + self.step * run.config.steps + between + self.final


def measure(run: Run, workers: LocalWorkers) -> Cost:
    """Train two steps of ``run`` as it would be trained, alone on the machine.

    Raises:
        TrainingError: it does not run; the message ends with its output.
    """
    config = run.config.model_copy(update={"steps": STEPS, "eval_every": 0, "checkpoint_every": STEPS})
    short = replace(run, config=config)
    with tempfile.TemporaryDirectory(prefix="drpo-lab-") as folder:
        directory = StudyDirectory(Path(folder))
        directory.write_config(short)
        started = time.monotonic()
        done = subprocess.run(
            [*workers.program, *short.arguments(directory.path)],
            env=workers.environment(0),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        wall = time.monotonic() - started
        if done.returncode:
            raise TrainingError(
                f"a measured step of {run.setting} × {run.arm} failed. Its command:\n  "
                f"{short.command(directory.path)}\nIts output ends:\n"
                f"{(done.stdout + done.stderr)[-1500:]}"
            )
        path, steps = RunDirectory(directory.path / short.path), [0.0] * STEPS
        for record in path.read_metrics("update"):
            steps[record["step"] - 1] += sum(record["timing"][part] for part in ("sampling", "grading", "training"))
        evaluations = [record["timing"]["seconds"] for record in path.read_metrics("evaluation")]
    first, *_, last = evaluations
    if config.eval_final is None:
        first = last = (first + last) / 2
    return Cost(wall - sum(steps) - sum(evaluations), steps[-1], first, last)


def measure_settings(
    runs: Sequence[Run], workers: LocalWorkers, on_measured: Callable[[str, Cost], None]
) -> dict[str, Cost]:
    """The cost of one run of each setting."""
    costs: dict[str, Cost] = {}
    for run in runs:
        if run.setting not in costs:
            costs[run.setting] = measure(run, workers)
            on_measured(run.setting, costs[run.setting])
    return costs


def seconds(runs: Sequence[Run], costs: dict[str, Cost], jobs: int) -> float:
    """All ``runs``, ``jobs`` at once, each as fast as it was alone."""
    return sum(costs[run.setting].of(run) for run in runs) / jobs
