"""``python -m examples.long_tail``: run the study, or go on with it where it stopped."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from drpo.bench.record import describe, write
from drpo.errors import CheckpointError, DrpoError
from examples.long_tail import COMMAND
from examples.long_tail.records import check_same, description
from examples.long_tail.runner import run_setting
from examples.long_tail.study import PLAN, QUICK, SETTINGS


def main(arguments: list[str] | None = None) -> None:
    """Parse, then run one setting after another on one thread."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/long-tail"), help="folder of the tables")
    parser.add_argument("--quick", action="store_true", help="runs so short that the figures mean nothing")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="which ones")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # probabilities that underflow would make some arms several times slower
    plan = QUICK if options.quick else PLAN
    command = COMMAND + " --quick" * options.quick
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name in options.settings:
            described = description(SETTINGS[name], plan)
            check_same(options.out / f"{name}.json", described)
            machine = describe()
            write(options.out / f"{name}.json", {"command": command, "machine": machine, **described})
            run_setting(SETTINGS[name], plan, options.out / f"{name}.csv", lambda line: print(line, flush=True))
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"cannot write in {options.out}: {reason}. Choose another --out.") from error


if __name__ == "__main__":
    try:
        main()
    except DrpoError as error:
        sys.exit(f"error: {error}")
