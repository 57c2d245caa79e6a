"""The process that runs cases: ``python -m fuzz.child MODULE FIRST LAST``; one JSON line for each case that ended."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path


def run(module: str, first: int, last: int, lines: int) -> None:
    """Run the cases of the seeds from ``first`` to ``last`` (not included); write to the descriptor ``lines``."""
    run_case = importlib.import_module(f"fuzz.{module}").run_case
    with os.fdopen(lines, "w", buffering=1, encoding="utf-8") as stream:
        for seed in range(first, last):
            with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
                try:
                    problem = run_case(seed, Path(folder))
                except BaseException:
                    problem = traceback.format_exc()
            stream.write(json.dumps({"seed": seed, "problem": problem}) + "\n")


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)  # what the code under test prints is not an answer
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), answers)
