"""Ask `drpo inspect` of every arm of the activation study, seeds together: how often trust regions act, and where.

python -m tools.measure.activation runs/lab/activation results/activation
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

#: The trust regions that are asked, at the same δ where they have one.
OBJECTIVES, DELTA = "drpo,dppo_tv,grpo,spo", 0.15
#: What is kept of the answer.
KEPT = ("tokens", "sequences", "delta", "figures", "mu_bins", "verdicts")


def inspect(runs: list[Path]) -> dict[str, Any]:
    """The answer for the tokens of ``runs`` taken together."""
    command = [
        sys.executable,
        "-m",
        "drpo",
        "inspect",
        *map(str, runs),
        "--json",
        "--delta",
        str(DELTA),
        "--objectives",
        OBJECTIVES,
    ]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {name: found[name] for name in KEPT}


def main() -> None:
    """Write tokens.json: setting → arm → what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the directory of `drpo lab run`")
    parser.add_argument("kept", type=Path, help="results/activation")
    options = parser.parse_args()
    study = yaml.safe_load((options.study / "study.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = {}
    for setting in study["settings"]:
        for arm in study["arms"]:
            runs = [options.study / "runs" / setting / arm / f"seed-{seed}" for seed in study["seeds"]]
            if all((run / "tokens").is_dir() for run in runs):
                found.setdefault(setting, {})[arm] = inspect(runs)
    options.kept.mkdir(parents=True, exist_ok=True)
    (options.kept / "tokens.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
