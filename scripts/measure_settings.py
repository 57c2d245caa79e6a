"""Run the six recipes recipe:settings/… once each and write results/settings.json and the table of docs/settings.md.

python scripts/measure_settings.py              # all of them, about half an hour on two cores
python scripts/measure_settings.py moe-fp8      # these alone; the others keep what they had
python scripts/measure_settings.py --table      # only write the table again
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

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "src" / "drpo" / "recipes" / "settings"
FILE, PAGE = ROOT / "results" / "settings.json", ROOT / "docs" / "settings.md"
START, END = "<!-- settings: made by scripts/measure_settings.py -->", "<!-- end of settings -->"
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


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """A line a setting."""
    heads = [
        "setting",
        "accuracy before",
        f"after {found[NAMES[0]]['steps']} steps",
        "mean \\|π − μ\\|",
        "p99 \\|π − μ\\|",
        "mean \\|log π − log μ\\|, nats",
        "tokens with μ ≤ 0.01",
        "tokens a response",
        "tokens/s",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name in NAMES:
        row = found[name]
        cells = [
            f"[{name}](../src/drpo/recipes/settings/{name}.yaml)",
            f"{row['before']['accuracy']:.3f}",
            f"{row['after']['accuracy']:.3f}",
            f"{row['shift']:.1e}",
            f"{row['shift_p99']:.1e}",
            f"{row['mismatch']:.1e}",
            f"{row['rare_share']:.1%}",
            f"{row['response_length']:.0f}",
            f"{row['tokens_per_second']:,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def load() -> dict[str, dict[str, Any]]:
    """What was measured so far."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def page(text: str) -> str:
    """``text`` with what was measured between its marks."""
    found = load()
    before, rest = text.split(START)
    _, after = rest.split(END)
    machines = dict.fromkeys(
        f"{row['machine']['date']}, torch {row['machine']['torch']}, threads a run: {row['machine']['threads']}"
        for row in found.values()
    )
    samples = found[NAMES[0]]["after"]["samples"]
    block = [
        START,
        "",
        *table(found),
        "",
        f"Seed 0; accuracy over {samples} sampled responses to held-out problems; "
        f"absolute probability shifts at the first update. Measured {'; '.join(machines)}.",
        "",
        END,
    ]
    return before + "\n".join(block) + after


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    found = load()
    for name in () if arguments.table else arguments.names:
        row = measure(name)
        found = {**load(), name: row}  # two of these may run side by side
        print(f"{name}: {found[name]['before']['accuracy']:.3f} → {found[name]['after']['accuracy']:.3f}", flush=True)
        text = json.dumps({key: found[key] for key in NAMES if key in found}, indent=1)
        FILE.write_text(text + "\n", encoding="utf-8")
    if set(found) == set(NAMES):
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
