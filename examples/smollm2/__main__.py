"""Train SmolLM2-135M-Instruct on sums and look at its tokens.

Three commands, which can be typed alone: `python -m examples.smollm2.model` fetches and converts the model, and
`drpo train recipe:smollm2-sums` and `drpo inspect` follow.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from drpo.run_directory import RunDirectory
from drpo.train.outcome import Outcome
from examples.smollm2 import COMMAND


def main() -> None:
    """Run the three, as long as each of them succeeds; then name the pages."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, help="directory of the run; default: a new one in runs/")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of the training, for example seed=1")
    options = parser.parse_intermixed_args()
    run = RunDirectory(options.out or Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-smollm2-sums")
    signal.signal(signal.SIGINT, lambda *_: None)  # on Ctrl-C the training saves a checkpoint, and this waits for it
    call("examples.smollm2.model")
    call("drpo", "train", "recipe:smollm2-sums", *options.settings, "--out", str(run.path))
    manifest = run.read_manifest()
    if manifest["status"] != "finished":
        return
    call("drpo", "inspect", str(run.path))
    print(f"\n{Outcome(**manifest['outcome']).text}")
    print(f"curves, and answers before and after  {run.report_file}")
    print(f"tokens                                {run.inspection_file}")


def call(*module: str) -> None:
    """Run a module of Python in a process of its own; ends this program where it fails."""
    print("$ " + shlex.join(["python", "-m", *module]), flush=True)
    status = subprocess.run([sys.executable, "-m", *module]).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
