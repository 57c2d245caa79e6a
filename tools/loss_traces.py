"""Loss traces: the demo's, and one short run of every objective, as digests that two versions can be compared by.

    python -m tools.loss_traces --out before.json          # in the version before a change
    python -m tools.loss_traces --compare before.json      # in the version after it

A trace is what metrics.jsonl records, timings aside, and the tensors and the state of the last checkpoint. Runs use one
thread.
Exit status 1 if any trace differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from drpo.objectives import OBJECTIVES
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from tools.kill_and_resume import outcome

COMMON = ["device=cpu", "threads=1", "seed=3"]
#: The demo's own settings, for a few of its steps.
DEMO = ["steps=3", "eval_every=0", "eval_examples=16"]
#: A run small enough to have one of every objective; several updates on a batch, so that trust regions act.
SHORT = [
    "steps=2",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=4",
    "max_new_tokens=16",
    "learning_rate=1e-3",
    "eval_every=0",
    "eval_examples=4",
    "eval_samples=1",
]


def trace(settings: list[str]) -> dict[str, str]:
    """Digests of what a run recorded and of the weights it ended with."""
    config, _ = load_config(None, [*COMMON, *settings])
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        train(config, run)
        parts = outcome(run.path)
    metrics = json.dumps(parts.pop("metrics"), sort_keys=True)
    weights = json.dumps(parts, sort_keys=True)
    return {"metrics": digest(metrics), "weights": digest(weights)}


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> int:
    """Write the traces, or compare them with those of another version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the traces to this file")
    parser.add_argument("--compare", type=Path, help="compare with the traces in this file")
    arguments = parser.parse_args()
    if not (arguments.out or arguments.compare):
        parser.error("give --out FILE, --compare FILE, or both")
    runs = {"demo": DEMO} | {name: [*SHORT, f"objective={name}"] for name in OBJECTIVES}
    traces: dict[str, dict[str, str]] = {}
    for name, settings in runs.items():
        traces[name] = trace(settings)
        print(name, traces[name]["metrics"][:16], traces[name]["weights"][:16], flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(traces, indent=2) + "\n", encoding="utf-8")
    if not arguments.compare:
        return 0
    before = json.loads(arguments.compare.read_text(encoding="utf-8"))
    different = sorted(name for name in {*before, *traces} if before.get(name) != traces.get(name))
    print(f"{len(traces) - len(different)} of {len(traces)} traces are identical", *different, sep="\n  ")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
