"""Keep what a study came to: its tables, curves and verdicts, with the command, the machine and the time they took.

    python -m tools.keep_study runs/lab/delta results/delta

The runs themselves (checkpoints, samples, logs) stay where they are. `make docs` makes the page from what is kept.
Of a study that is not finished the verdicts are left out: to judge it early would be a look that it does not plan.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drpo.bench.record import describe
from drpo.lab.directory import StudyDirectory
from drpo.lab.plan import row_path
from drpo.lab.registration import registration
from drpo.lab.results import Row, read_csv

FILES = ("study.yaml", "results.csv", "curves.csv", "choices.json")
#: Those of a finished study.
JUDGED = ("results.md", "verdicts.json")


def about(directory: StudyDirectory, rows: Sequence[Row], before: Mapping[str, Any]) -> dict[str, Any]:
    """How the study was run, going by its journal.

    Args:
        directory: of the study, in its last sitting.
        rows: its runs, also those of earlier sittings.
        before: what was kept of the earlier sittings.
    """
    journal, name = directory.journal(), directory.path.name
    times = [entry["at"] for entry in journal if "at" in entry]
    registered = registration(directory.path)
    sources = {entry["run"]: study_of(entry["source"]) for entry in journal if entry["event"] == "reused"}
    elsewhere = {run for run, source in sources.items() if source != name}
    # A run at the shared rate that is also its arm's best has two rows and one command: it counts once.
    own = {row["command"]: row for row in rows if str(row_path(row)) not in elsewhere and row.get("seconds")}
    days = [before.get("began"), *([day(min(times)), day(max(times))] if times else []), before.get("ended")]
    return {
        **({"registration": registered} if registered else {}),
        "command": f"drpo lab run recipe:studies/{directory.path.name}",
        "machine": describe(),
        "began": min(filter(None, days), default=None),
        "ended": max(filter(None, days), default=None),
        "threads_a_run": sorted(
            {entry["threads"] for entry in journal if entry["event"] == "started"}
            | set(before.get("threads_a_run", []))
        ),
        "started": len(own),
        "reused": sorted({*sources.values(), *before.get("reused", [])} - {name}),
        "seconds": round(sum(row["seconds"] for row in own.values())),
    }


def first_registration(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The registration of the first sitting, if it is of the same study; nothing otherwise."""
    kept, new = before.get("registration"), now.get("registration")
    if not kept or not new or kept["study"] != new["study"] or kept["registered"] > new["registered"]:
        return {}
    return {"registration": kept}


def study_of(source: str) -> str:
    """The study of a reused run: of its directory STUDY/runs/SETTING/ARM/seed-N, or of the command in its kept row."""
    return Path(source.split(" --out ")[-1]).parents[3].name


def day(seconds: float) -> str:
    """The date of a time since the epoch."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d")


def main() -> None:
    """Copy the tables and write about.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the directory of `drpo lab run`")
    parser.add_argument("kept", type=Path, help="where to keep the tables, below results/")
    options = parser.parse_args()
    if not (options.study / "results.csv").is_file():
        raise SystemExit(f"{options.study} holds no results.csv: run `drpo lab report` on the study first")
    rows = read_csv(options.study / "results.csv")
    left = sum(row["status"] not in ("finished", "failed") for row in rows)
    options.kept.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, *JUDGED):
        if name in JUDGED and left:
            (options.kept / name).unlink(missing_ok=True)
        elif (options.study / name).is_file():
            shutil.copyfile(options.study / name, options.kept / name)
    if left:
        print(f"{left} of {len(rows)} runs are left; {options.kept} has no verdicts until they are done")
    file = options.kept / "about.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = about(StudyDirectory(options.study), rows, before)
    found |= first_registration(before, found)
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
