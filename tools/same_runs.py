"""Compare the runs of two directories of one study: every recorded figure but times must be the same, to the bit.

    python -m tools.same_runs runs/lab/identity-1 runs/lab/identity-2

Exit status 1, and the first figure that differs, where they are not; 2 where they do not hold the same runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from drpo.run_directory import RunDirectory

#: What may differ from one run to its repetition.
TIMES = ("timing",)


def runs(folder: Path) -> dict[str, RunDirectory]:
    """The runs below a study's directory, by their place in it."""
    return {str(file.parent.relative_to(folder)): RunDirectory(file.parent) for file in folder.rglob("config.yaml")}


def records(run: RunDirectory) -> list[dict[str, Any]]:
    """What a run recorded of its updates and evaluations, without times."""
    found = [*run.read_metrics("update"), *run.read_metrics("evaluation")]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in found]


def difference(one: RunDirectory, other: RunDirectory) -> str:
    """The first figure that differs, in words; empty if none does."""
    ours, theirs = records(one), records(other)
    if len(ours) != len(theirs):
        return f"{len(ours)} records and {len(theirs)}"
    for mine, its in zip(ours, theirs, strict=True):
        for key in {**mine, **its}:
            if repr(mine.get(key)) != repr(its.get(key)):  # NaN is the same as NaN
                return f"{mine['kind']} of step {mine['step']}, {key}: {mine.get(key)!r} and {its.get(key)!r}"
    return ""


def main() -> int:
    """Print what differs; the exit status says whether anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args()
    ours, theirs = runs(options.first), runs(options.second)
    if not ours or ours.keys() != theirs.keys():
        print(f"{options.first} and {options.second} do not hold the same runs: {sorted(ours.keys() ^ theirs.keys())}")
        return 2
    found = {name: difference(ours[name], theirs[name]) for name in ours}
    for name, what in found.items():
        print(f"{name}: {what or 'the same to the bit'}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
