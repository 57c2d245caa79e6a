"""The loss on one NVIDIA card, at the sizes of Qwen3-4B's head, against the card's own matrix products.

    PYTHONPATH=src python benchmarks/gpu_kernels.py                    # a bare machine with torch and numpy will do
    PYTHONPATH=src python benchmarks/gpu_kernels.py --also sampler step    # needs transformers, and TRL for its row
    PYTHONPATH=src python benchmarks/gpu_kernels.py --device cpu --quick   # does every line run?

N = 8,192 and 32,768 hidden states, H = 2,560, V = 151,936, bf16. First the card's own rate: the three products that any
method needs, into memory that is there. Then every way from hidden states to both gradients, in turns. TFLOP/s counts
these three products and no recomputation, so that the share of the card's rate says how much of its time a method
spends on what cannot be avoided. A method that runs out of memory, or is not installed, is a row that says so.

Without a CUDA device it says so and exits with 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from drpo.bench import SUITES
from drpo.bench.frame import Case, Row, Settings, Turn, measure, release_memory, timed
from drpo.bench.kernels import ON_GPU, QUICK, measure_losses
from drpo.bench.losses import Size
from drpo.bench.record import as_json, describe, write

FOLDER = Path(__file__).resolve().parents[1] / "results" / "bench"
PRODUCTS = "three products"
#: Rows of hidden states in one product: enough for the card to be at its best, and 2.5 GB of logits at most.
ROWS = 8192


def main() -> int:
    """Measure, print rows as they come, and write them; 2 where there is nothing to measure on."""
    arguments = parse_arguments()
    device = arguments.device
    if device == "cpu" and not arguments.quick:
        return refuse("--device cpu is for --quick alone; `drpo bench` measures CPUs.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        return refuse(
            "torch sees no CUDA device here. Run this on a machine with an NVIDIA card and a CUDA build of "
            "torch, or try it out with --device cpu --quick."
        )
    machine = describe(device)
    card = re.sub(r"[^a-z0-9]+", "-", str(machine.get("gpu", "cpu")).lower()).strip("-")
    file = arguments.json or FOLDER / f"gpu-{card}-{machine['date']}.json"
    command = shlex.join(["python", "benchmarks/gpu_kernels.py", *sys.argv[1:]])
    rows: list[Row] = []
    for case in cases(arguments):
        rows += case
        print("\n".join(map(line, case)), flush=True)
        write(file, as_json("gpu", command, machine, rows))  # after every case: a borrowed card may be called back
    print(f"written {file}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, help="measured rounds of every case")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the figures mean nothing")
    parser.add_argument("--also", nargs="+", default=[], choices=["sampler", "step"], help="suites of `drpo bench`")
    parser.add_argument("--json", type=Path, help="where to write; default: results/bench/gpu-CARD-DATE.json")
    return parser.parse_args()


def refuse(reason: str) -> int:
    """Say why nothing is measured."""
    print(f"error: {reason}", file=sys.stderr)
    return 2


def cases(arguments: argparse.Namespace) -> Iterator[list[Row]]:
    """The card's rate and the losses at each size, then the suites asked for."""
    device = arguments.device
    for size, default in (QUICK if arguments.quick else ON_GPU).items():
        here = dataclasses.replace(size, device=device, dtype="bfloat16")
        rounds = arguments.rounds or default
        (products,) = measure_products(here, rounds)
        yield [products]
        rows = measure_losses(here, rounds, device.startswith("cuda"), say)
        card = max(row.figures["tflops"] for row in (products, with_rate(rows[0], here)) if row.skipped is None)
        yield [with_rate(row, here, card) for row in rows]
    on_gpu = device.startswith("cuda")
    settings = Settings(device=device, quick=arguments.quick, rounds=arguments.rounds, compiled=on_gpu)
    for suite in arguments.also:
        yield from importlib.import_module(SUITES[suite]).run(settings, say)


def measure_products(size: Size, rounds: int) -> list[Row]:
    """The three products alone."""
    case = Case(title=size.title(), sizes=size.numbers(), variants={PRODUCTS: products(size)}, rounds=rounds, warm_up=2)
    rows = [with_rate(row, size) for row in measure(case, say)]
    release_memory()
    return rows


def products(size: Size) -> Callable[[], Turn]:
    """A turn of the three products of every chunk of rows, into memory that is there."""
    dtype, device, rows = getattr(torch, size.dtype), size.device, min(ROWS, size.tokens)
    hidden = torch.randn(size.tokens, size.hidden, device=device, dtype=dtype)
    weight = torch.randn(size.vocabulary, size.hidden, device=device, dtype=dtype)
    logits = torch.empty(rows, size.vocabulary, device=device, dtype=dtype)
    to_hidden, to_weight = torch.empty_like(hidden[:rows]), torch.empty_like(weight)

    def work() -> None:
        for chunk in hidden.split(rows):
            torch.mm(chunk, weight.T, out=logits)
            torch.mm(logits, weight, out=to_hidden)
            torch.mm(logits.T, chunk, out=to_weight)

    return lambda: timed(work, device)


def with_rate(row: Row, size: Size, card: float | None = None) -> Row:
    """The row with its TFLOP/s, counting three products, and their share of the card's."""
    if row.skipped is not None:
        return row
    rate = 3 * 2 * size.tokens * size.hidden * size.vocabulary / row.median / 1e12
    share = {} if card is None else {"gemm_share": rate / card}
    return dataclasses.replace(row, figures={**row.figures, "tflops": rate, **share})


def line(row: Row) -> str:
    """What a row says on the terminal."""
    head = f"{row.case}  {row.variant:24s}"
    if row.skipped is not None:
        return f"{head} skipped: {row.skipped}"
    parts = [f"{row.median * 1e3:9.2f} ms ({min(row.seconds) * 1e3:.2f} to {max(row.seconds) * 1e3:.2f})"]
    parts += [f"{ratio:.2f} × {name}" for name, ratio in row.ratios.items()]
    shown = {"tflops": "{:.1f} TFLOP/s", "gemm_share": "{:.1%} of the card's rate"}
    parts += [text.format(row.figures[name]) for name, text in shown.items() if name in row.figures]
    if "peak_bytes" in row.figures:
        parts.append(f"peak {row.figures['peak_bytes'] / 1e6:,.0f} MB")
    if row.tokens_per_second is not None:
        parts.append(f"{row.tokens_per_second:,.0f} tokens/s")
    if row.note is not None:
        parts.append(row.note)
    return "  ".join([head, *parts])


def say(text: str) -> None:
    """Progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
