"""A `drpo train` that learns nothing and takes no time, for what a runner does with its processes.

Run as ``python stand_in.py BEHAVIOR.json train …``. The file says for each run, by the end of its path: its
configuration, its accuracies by step, seconds a step, and whether it crashes after a step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

from drpo.code_version import training_code
from drpo.cpus import cpu_model
from drpo.run_directory import RunDirectory


def main() -> None:
    behaviors, arguments = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2:]
    path = Path(arguments[arguments.index("--out" if "--out" in arguments else "--resume") + 1])
    told = next(given for end, given in behaviors.items() if str(path).endswith(end))
    run = RunDirectory(path)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    step = run.steps_sampled()
    manifest = {
        "status": "running",
        "threads": os.environ["OMP_NUM_THREADS"],
        "pid": os.getpid(),
        "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "cpu": told.get("cpu", cpu_model()),
        "code": training_code(),
        "versions": {"torch": version("torch")},
    }
    run.create(told["config"], manifest)
    accuracies = told["accuracies"]
    while step < len(accuracies) - 1:
        if step == told.get("crash_after"):
            sys.stderr.write("the reason of the crash\n")
            sys.exit(3)
        if not step:
            run.append_metrics(evaluation(0, accuracies[0]))
        step += 1
        time.sleep(told.get("seconds", 0.0))
        run.append_metrics(update(step) | ({"reward": told["rewards"][step - 1]} if "rewards" in told else {}))
        run.append_metrics(evaluation(step, accuracies[step]))
        run.write_rollouts("step", step, [])
        if asked:
            run.write_manifest({**manifest, "status": "interrupted"})
            return
    run.write_manifest({**manifest, "status": "finished"})


def evaluation(step: int, accuracy: float) -> dict[str, object]:
    return {"kind": "evaluation", "step": step, "accuracy": accuracy, "timing": {"seconds": 0.5}}


def update(step: int) -> dict[str, object]:
    timing = {"sampling": 1.0, "grading": 0.25, "training": 2.0}
    return {
        "kind": "update",
        "step": step,
        "tokens": 100 * step,
        "shift": 0.01 * step,
        "mismatch": None,
        "ratio_max": 1.0 + step,
        "timing": timing,
    }


if __name__ == "__main__":
    main()
