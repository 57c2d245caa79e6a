"""Run the six recipes recipe:settings/… once each and write results/settings.json.

python -m tools.measure.settings              # all of them, about half an hour on two cores
python -m tools.measure.settings moe-fp8      # these alone; the others keep what they had
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tools import RESULTS, ROOT

FILE = RESULTS / "settings.json"
#: In the order of the paper's Table 1.
NAMES = ("dense-bf16", "moe-bf16", "moe-fp8-rollout", "moe-fp8", "hybrid-bf16", "reasoner-bf16")


def measure(name: str) -> dict[str, Any]:
    """One run, and what it said."""
    command = ["train", f"recipe:settings/{name}"]
    with tempfile.TemporaryDirectory() as folder:
        run, started = Path(folder) / "run", time.monotonic()
        program = [sys.executable, "-m", "drpo", *command, "--out", str(run)]
        done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        seconds = time.monotonic() - started
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    today, threads = datetime.date.today().isoformat(), torch.get_num_threads()
    machine = {"date": today, "torch": torch.__version__, "threads": threads}
    return {"command": "drpo " + " ".join(command), "machine": machine, "seconds": seconds, **summary(records)}


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table shows of a run's records."""
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    updates = [record for record in records if record["kind"] == "update"]
    first, rates = updates[0], [record["timing"]["tokens_per_second"] for record in updates if "timing" in record]
    keys = ("accuracy", "correct", "samples")
    return {
        "steps": updates[-1]["step"],
        "before": {key: evaluations[0][key] for key in keys},
        "after": {key: evaluations[-1][key] for key in keys},
        **{key: first[key] for key in ("shift", "shift_p99", "mismatch", "mismatch_p95", "rare_share")},
        "response_length": statistics.mean(record["response_length"] for record in updates),
        "tokens_per_second": statistics.median(rates),
    }


def load() -> dict[str, dict[str, Any]]:
    """What was measured so far."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def main() -> None:
    """Measure, and write the file after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    arguments = parser.parse_args()
    found = load()
    for name in arguments.names:
        row = measure(name)
        found = {**load(), name: row}  # two of these may run side by side
        print(f"{name}: {found[name]['before']['accuracy']:.3f} → {found[name]['after']['accuracy']:.3f}", flush=True)
        text = json.dumps({key: found[key] for key in NAMES if key in found}, indent=1)
        FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
