"""Measure everything on one NVIDIA card, part after part, and keep what was measured.

    python -m drpo.bench.gpu                        # all parts
    python -m drpo.bench.gpu --limit 1500           # as far as 25 minutes go; the same command goes on later
    python -m drpo.bench.gpu kernels --again kernels
    python -m drpo.bench.gpu --device cpu --quick   # does every line run?

Each part runs in its own process with its own time limit. It writes its record after each case; a part whose record is
complete is not measured again. A variant that runs out of memory, or is not installed, is a row that says so. torch and
numpy are enough for the kernels; other parts say what they miss. Nothing is downloaded: models are made from random
numbers.

Without a CUDA device this says so and exits with 2; it exits with 1 if a part failed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import torch

from drpo.bench.frame import Settings
from drpo.bench.gpu import PARTS
from drpo.bench.gpu.runner import run_parts, summary
from drpo.bench.record import describe


def main() -> int:
    """Run the parts and print the summary."""
    arguments = parse_arguments()
    device = arguments.device
    if not device.startswith(("cpu", "cuda")):
        return refuse(f"--device {device} is no device of these benchmarks: cuda, cuda:N, or cpu with --quick.")
    if device.startswith("cpu") and not arguments.quick:
        return refuse("--device cpu is for --quick alone; `drpo bench` measures CPUs.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        return refuse(
            "torch sees no CUDA device here. Run this on a machine with an NVIDIA card and a CUDA build of "
            "torch, or try it out with --device cpu --quick."
        )
    folder = arguments.out or Path("bench") / f"gpu-{card(device)}{'-quick' if arguments.quick else ''}"
    settings = Settings(device=device, quick=arguments.quick, rounds=arguments.rounds)
    names = [name for name in PARTS if not arguments.parts or name in arguments.parts]
    outcomes = run_parts(names, settings, folder, arguments.again, arguments.limit, say)
    say("\n".join(summary(outcomes)))
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    shown = "\n".join(f"  {name:12s} {part.what}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m drpo.bench.gpu",
        description=f"{__doc__}\nParts, in order:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all of them")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the figures mean nothing")
    parser.add_argument("--limit", type=positive, help="seconds for the whole call")
    parser.add_argument(
        "--again", nargs="+", default=[], metavar="PART", help="measure it although its record is there"
    )
    parser.add_argument("--rounds", type=positive, help="measured rounds of every case")
    parser.add_argument("--out", type=Path, help="folder of records and logs; default: bench/gpu-CARD")
    arguments = parser.parse_args()
    for name in [*arguments.parts, *arguments.again]:
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; parts are {', '.join(PARTS)}")
    return arguments


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def card(device: str) -> str:
    """The card's name as a part of a file name."""
    name = str(describe(device).get("gpu", "cpu")).lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def refuse(reason: str) -> int:
    """Say why nothing is measured."""
    sys.stderr.write(f"error: {reason}\n")
    return 2


def say(text: str) -> None:
    """A line of output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
