"""Run the generators of tests/fuzz: `python -m tools.fuzz [MODULE]... --count 100000`.

A run can be cut into ranges of seeds: it says where the next one starts. Exits with 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys

from tools import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from fuzz.runner import modules, run_cases  # pyright: ignore[reportMissingImports]


def main() -> int:
    """The number of modules with a failure, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"default: all ({', '.join(modules())})")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each module (lines, overrides, files)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one case")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - set(modules())
    if unknown:
        parser.error(f"no module {', '.join(sorted(unknown))}; there are {', '.join(modules())}")
    failures = [
        _run(module, arguments.seed, arguments.count, arguments.limit) for module in arguments.modules or modules()
    ]
    return int(any(failures))


def _run(module: str, first: int, count: int, limit: float) -> int:
    units = importlib.import_module(f"fuzz.{module}").UNITS
    last = first + math.ceil(count / units)
    failures = 0
    for outcome in run_cases(module, first, last, limit):
        if outcome.problem is not None:
            failures += 1
            print(f"{module} --seed {outcome.seed} --count 1: {outcome.problem}", flush=True)
        if (done := outcome.seed + 1 - first) % 500 == 0:
            print(f"{module}: {done * units:,} inputs, next seed {outcome.seed + 1}", file=sys.stderr, flush=True)
    print(
        f"{module}: {(last - first) * units:,} inputs in {last - first:,} cases, seeds {first} to {last - 1}: "
        f"{failures} went wrong",
        flush=True,
    )
    return failures


if __name__ == "__main__":
    sys.exit(main())
