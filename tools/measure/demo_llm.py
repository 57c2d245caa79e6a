"""Train recipe:smollm2-sums with three seeds and write results/demo-llm.json.

    python -m tools.measure.demo_llm                # about five minutes a seed on two quiet cores
    python -m tools.measure.demo_llm 0 --runs DIR   # seed 0 alone; DIR keeps the runs

A run that was stopped is resumed, a finished one is not run again; its CPU time adds up over processes, in usage.json
beside its records.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from drpo.bench.record import cores, cpu_name
from drpo.files import read_json, replace_text
from drpo.run_directory import RunDirectory
from examples.smollm2.model import MODEL, fetch
from tools import RESULTS, ROOT

FILE = RESULTS / "demo-llm.json"
RECIPE = "recipe:smollm2-sums"
SEEDS = (0, 1, 2)
#: Of the answers before and after training.
SHOWN = 4


def measure(seed: int, run: RunDirectory) -> dict[str, Any]:
    """The row of a seed: train in ``run`` what is not trained yet, and read its records."""
    if run.read_manifest().get("status") != "finished":
        resume = ["--resume", str(run.path)]
        start = [RECIPE, f"seed={seed}", "--out", str(run.path)]
        spend(run, ["train", *(resume if run.exists() else start)])
    return {"seed": seed, "machine": machine(run), **usage(run), **summary(run)}


def spend(run: RunDirectory, command: list[str]) -> None:
    """Run `drpo` and add what it took to usage.json of the run."""
    load, started = round(os.getloadavg()[0], 2), time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "drpo", *command], cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    row = {"wall_seconds": time.monotonic() - started, "cpu_seconds": used.ru_utime + used.ru_stime, "load": load}
    if run.path.is_dir():
        told = read_json(run.path / "usage.json") if (run.path / "usage.json").is_file() else []
        replace_text(run.path / "usage.json", json.dumps([*told, {**row, "peak_bytes": peak}]))
    if process.returncode:
        sys.exit(f"drpo {' '.join(command)}: exit status {process.returncode}")


def usage(run: RunDirectory) -> dict[str, float]:
    """Seconds and peak memory over the processes of a run; the load when the first began."""
    told = read_json(run.path / "usage.json")
    sums = {key: round(sum(row[key] for row in told), 1) for key in ("wall_seconds", "cpu_seconds")}
    return {**sums, "peak_bytes": max(row["peak_bytes"] for row in told), "load": told[0]["load"]}


def machine(run: RunDirectory) -> dict[str, Any]:
    """Date, CPU, threads and versions of a run on this machine."""
    manifest = run.read_manifest()
    versions = {name: manifest["versions"][name] for name in ("drpo", "torch", "transformers")}
    return {"date": manifest["started"][:10], "cpu": cpu_name(), "cores": cores(), "threads": manifest["threads"]} | {
        "versions": versions
    }


def summary(run: RunDirectory) -> dict[str, Any]:
    """Held-out accuracy, what happened to the tokens, and some answers."""
    evaluations, updates = run.read_metrics("evaluation"), run.read_metrics("update")
    tokens = sum(record["tokens"] for record in updates)
    held = run.read_rollouts("evaluation")
    first, last = (held[step] for step in (min(held), max(held)))
    keys = ("accuracy", "correct", "samples", "response_length", "truncated_share")
    answers = [
        {"prompt": before["prompt"], "answer": before["answer"], "before": before["text"], "after": after["text"]}
        for before, after in zip(first, last, strict=True)
    ]
    each = len(first) // evaluations[0]["examples"]
    return {
        "steps": updates[-1]["step"],
        "before": {key: evaluations[0][key] for key in keys},
        "after": {key: evaluations[-1][key] for key in keys},
        "outcome": run.read_manifest()["outcome"]["sentence"],
        "tokens": tokens,
        **{key: sum(r[key] * r["tokens"] for r in updates) / tokens for key in ("rare_share", "beyond_delta", "shift")},
        "answers": answers[: SHOWN * each : each],
    }


def main() -> None:
    """Measure, and write the file after every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "demo-llm", help="where the runs are kept")
    arguments = parser.parse_args()
    fetch(ROOT / MODEL)
    for seed in arguments.seeds:
        row = measure(seed, RunDirectory(arguments.runs.absolute() / f"seed-{seed}"))
        rows = {found["seed"]: found for found in (read_json(FILE)["runs"] if FILE.is_file() else [])} | {seed: row}
        record = {"schema": 1, "command": f"drpo train {RECIPE} seed=…", "runs": [rows[key] for key in sorted(rows)]}
        replace_text(FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        print(f"seed {seed}: {row['outcome']}", flush=True)


if __name__ == "__main__":
    main()
