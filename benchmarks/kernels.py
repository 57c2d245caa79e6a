"""From hidden states to the gradients of DRPO's loss: our one pass against the ways that people use, side by side.

    python benchmarks/kernels.py                 # N = 1,024, H = 512, V = 32,000, float32
    python benchmarks/kernels.py --rows 4096 --hidden 256 --vocabulary 151936 --rounds 3

Forward and backward together, gradients for the hidden states and the LM head. `floor` is the three matrix products
that any method needs (the logits and one for each gradient), and nothing else. The variants take turns; a figure is the
median over the rounds after the first, a ratio is to the floor of the same round. Memory is measured in a process of
its own for each variant: the highest resident size during the call, less that before it and less the two gradients.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import drpo

Step = Callable[[torch.Tensor, torch.Tensor], None]
#: Tokens of a sequence, for a method that wants sequences; the number of rows must be a multiple.
LENGTH = 64


def variants(targets: torch.Tensor, behavior: torch.Tensor, advantages: torch.Tensor) -> dict[str, Step]:
    """Name → forward and backward on (hidden, weight), both of which get a gradient."""
    one_pass, two_pass = drpo.make_objective("drpo"), drpo.make_objective("gspo")

    def loss_of(logprobs: torch.Tensor) -> torch.Tensor:
        batch = drpo.TokenBatch(logprobs, behavior, advantages, validate=False)
        return drpo.aggregate(one_pass(batch).loss, batch)

    def floor(hidden: torch.Tensor, weight: torch.Tensor) -> None:
        with torch.no_grad():
            logits = hidden @ weight.T
            hidden.grad, weight.grad = logits @ weight, logits.T @ hidden

    def naive(hidden: torch.Tensor, weight: torch.Tensor) -> None:
        logprobs = (hidden @ weight.T).log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
        loss_of(logprobs).backward()

    def chunked(hidden: torch.Tensor, weight: torch.Tensor) -> None:
        loss_of(drpo.token_logprobs(hidden, weight, targets, backend="chunked")[0]).backward()

    def fused(objective: drpo.Objective) -> Step:
        def step(hidden: torch.Tensor, weight: torch.Tensor) -> None:
            drpo.fused_loss(
                hidden, weight, targets, objective, behavior_logprobs=behavior, advantages=advantages
            ).loss.backward()

        return step

    found: dict[str, Step] = {
        "floor": floor, "naive": naive, "token_logprobs chunked": chunked, "fused_loss": fused(one_pass),
        "fused_loss two-pass": fused(two_pass),
    }  # fmt: skip
    liger = liger_step(targets, behavior, advantages)
    return found if liger is None else {**found, "liger grpo": liger}


def liger_step(targets: torch.Tensor, behavior: torch.Tensor, advantages: torch.Tensor) -> Step | None:
    """Liger-Kernel's fused linear GRPO loss over sequences of 64 tokens; None where it is not installed."""
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    loss = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False, compiled=False)
    tokens = targets.view(-1, LENGTH)

    def step(hidden: torch.Tensor, weight: torch.Tensor) -> None:
        value, _ = loss(
            hidden.view(*tokens.shape, -1), weight, tokens, torch.ones_like(tokens), advantages.view(-1, LENGTH)[:, 0],
            old_per_token_logps=behavior.view(-1, LENGTH),
        )
        value.backward()

    return step


def problem(arguments: argparse.Namespace) -> tuple[dict[str, Step], torch.Tensor, torch.Tensor]:
    """The variants with their inputs, μ a little off π."""
    torch.manual_seed(0)
    rows, width, vocabulary = arguments.rows, arguments.hidden, arguments.vocabulary
    hidden, weight = 0.3 * torch.randn(rows, width), 0.1 * torch.randn(vocabulary, width)
    targets = torch.randint(0, vocabulary, (rows,))
    with torch.no_grad():
        logprobs, _ = drpo.token_logprobs(hidden, weight, targets)
    behavior = (logprobs + 0.2 * torch.randn(rows)).clamp(max=-1e-4)
    steps = variants(targets, behavior, torch.randn(rows))
    return steps, hidden.requires_grad_(True), weight.requires_grad_(True)


def resident(line: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(line):
            return 1024 * int(text.split()[1])
    raise RuntimeError(f"/proc/self/status has no {line}")


def peak(arguments: argparse.Namespace) -> int:
    """Bytes above inputs and gradients of one call of the variant."""
    steps, hidden, weight = problem(arguments)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what making the inputs has left behind
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    steps[arguments.peak](hidden, weight)
    gradients = 4 * (hidden.numel() + weight.numel())
    return max(resident("VmHWM") - before - gradients, 0)


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Variant → seconds and ratios."""
    steps, hidden, weight = problem(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds + 1):
        for name, step in steps.items():
            hidden.grad = weight.grad = None
            started = time.perf_counter()
            step(hidden, weight)
            seconds[name].append(time.perf_counter() - started)
    rows = {}
    for name, times in seconds.items():
        ratios = [own / floor for own, floor in zip(times[1:], seconds["floor"][1:], strict=True)]
        rows[name] = {
            "seconds": statistics.median(times[1:]), "min": min(times[1:]), "max": max(times[1:]),
            "to_floor": statistics.median(ratios),
        }
    for row in rows.values():
        row["to_naive"] = row["seconds"] / rows["naive"]["seconds"]
    return rows


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024, help="tokens, N")
    parser.add_argument("--hidden", type=int, default=512, help="H")
    parser.add_argument("--vocabulary", type=int, default=32_000, help="V")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(arguments))
        return
    rows = measure(arguments)
    size = ["--rows", arguments.rows, "--hidden", arguments.hidden, "--vocabulary", arguments.vocabulary]
    for name, row in rows.items():
        command = [sys.executable, __file__, *map(str, size), "--peak", name]
        row["peak_mb"] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1e6
        print(f"{name:24s} {row['seconds']:.3f} s ({row['min']:.3f} to {row['max']:.3f})  "
              f"{row['to_floor']:.2f} × floor  {row['to_naive']:.2f} × naive  peak {row['peak_mb']:,.0f} MB")
    if arguments.json:
        figures = {"threads": torch.get_num_threads(), "size": size, "variants": rows}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
