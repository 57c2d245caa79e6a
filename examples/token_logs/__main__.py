"""Make a log again: a run, and a sample of its tokens.

python -m examples.token_logs healthy              # `drpo train recipe:smollm2-sums`: five minutes
python -m examples.token_logs healthy --run RUN    # the same of a run that is there
python -m examples.token_logs wrong-temperature    # examples/token_logs/wrong_temperature.py: two minutes
python -m examples.token_logs collapsed            # `drpo train` with COLLAPSE: a minute
"""

from __future__ import annotations

import argparse
import gzip
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from drpo.files import json_line, read_jsonl, replace_bytes
from drpo.run_directory import RunDirectory
from examples.smollm2.model import MODEL, fetch
from examples.token_logs import FOLDER, NAMES, wrong_temperature

#: Twenty times the learning rate of `make demo`, and four times as many updates.
COLLAPSE = ["task.max_digits=2", "steps=12", "updates_per_step=16", "learning_rate=1e-3", "threads=1"]
#: Most tokens of a step: no further response is added beyond them. Estimating a temperature needs more tokens.
TOKENS = {"healthy": 512, "wrong-temperature": 2048, "collapsed": 512}


def main() -> None:
    """Run, and write the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--run", type=Path, help="the run whose tokens are sampled; default: a new one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(arguments.run or Path(folder) / "run")
        if arguments.run is None:
            make(arguments.name, run)
        pack(run, FOLDER / arguments.name / "tokens.jsonl.gz", TOKENS[arguments.name])


def make(name: str, run: RunDirectory) -> None:
    """Run what makes the log ``name``."""
    if name != "collapsed":
        fetch()
    if name == "wrong-temperature":
        wrong_temperature.run(MODEL, run.tokens)
    else:
        training = ["recipe:smollm2-sums"] if name == "healthy" else COLLAPSE
        subprocess.run([sys.executable, "-m", "drpo", "train", *training, "--out", str(run.path)], check=True)


def pack(run: RunDirectory, file: Path, most: int) -> None:
    """Write a sample of a run's tokens: of each step responses drawn at random, whole, in their order.

    Args:
        run: its token log is read.
        file: compressed JSONL; an older one is replaced.
        most: once a step has this many tokens, no further response is added.
    """
    lines: list[str] = []
    for source in run.token_files():
        records = list(read_jsonl(source))
        tokens = 0
        chosen: set[int] = set()
        for row in random.Random(0).sample(range(len(records)), len(records)):
            if tokens >= most:
                break
            chosen.add(row)
            tokens += len(records[row]["logprobs"])
        lines += [json_line(record) for row, record in enumerate(records) if row in chosen]
    file.parent.mkdir(exist_ok=True)
    replace_bytes(file, gzip.compress("".join(lines).encode(), mtime=0))
    print(f"{file}: {len(lines)} responses, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
