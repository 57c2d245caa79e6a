"""Make an embedded base."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
import transformers

from drpo.model.source import ASSETS, SHIPPED, bases_folder
from tools.warm_start.bases import BASES
from tools.warm_start.fit import warm_start
from tools.warm_start.measure import measure


def main() -> None:
    """Make the base, measure it, and keep how it was made beside it."""
    parser = argparse.ArgumentParser(prog="python -m tools.warm_start", description=__doc__)
    parser.add_argument("base", nargs="?", choices=sorted(BASES), default="arithmetic")
    parser.add_argument("--out", type=Path, help="default: bases/NAME; of the shipped base, the package's own assets")
    parser.add_argument("--steps", type=int, help="batches to learn; fewer for a try")
    arguments = parser.parse_args()
    spec = BASES[arguments.base]
    if arguments.steps is not None:
        spec = dataclasses.replace(spec, steps=arguments.steps)
    out: Path = arguments.out or (ASSETS if arguments.base == SHIPPED else bases_folder()) / arguments.base
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = warm_start(spec, lambda step, loss: say(f"step {step}/{spec.steps}  loss {loss:.4f}"))
    model.bfloat16().save_pretrained(out)  # half the size; loaded as float32
    tokenizer.save_pretrained(out)
    measured = measure(out, spec)
    made = {**spec.described(), "parameters": model.num_parameters(), **measured, "torch": torch.__version__}
    (out / "warm_start.json").write_text(json.dumps(made, indent=2) + "\n")
    accuracy, tail = measured["heldout"]["accuracy"], measured["tail_share"]
    say(f"{out}: sampled held-out accuracy {accuracy:.3f}, share of tokens with μ ≤ 0.01 {tail:.3f}")


if __name__ == "__main__":
    main()
