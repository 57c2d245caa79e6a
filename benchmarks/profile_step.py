"""Where the time of one training step goes, in per cent, on the demo's model and problems.

    python benchmarks/profile_step.py                       # prints the table
    python benchmarks/profile_step.py --json results/bench/profile.json   # what `make bench` does

A step is a rollout batch of 16 × 8 responses with four updates, as in the demo. Clocks stand around the functions that
do the work; time that one of them spends inside another counts for the inner one alone, so that the shares add up. The
learning rate is 1e-9, so that responses keep their length and a part of the groups its differing rewards.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from drpo.bench.record import describe
from drpo.model import forward as states
from drpo.model import policy
from drpo.model.decoding import decoder as decoding
from drpo.rollouts import in_process
from drpo.run_directory import RunDirectory
from drpo.tasks.grading.grader import Grader
from drpo.train import gradient, update
from drpo.train.config import load_config
from drpo.train.determinism import deterministic_algorithms
from drpo.train.loop import Trainer
from drpo.train.setup import build

WARM_UP = 2
#: What is timed: label, owner and name of the function.
CLOCKS: list[tuple[str, Any, str]] = [
    ("sampling: model, prompts", in_process.InProcessSampler, "_prefill"),
    ("sampling: model, one token after another", decoding.Decoding, "next_logits"),
    ("sampling: drawing and bookkeeping", in_process.InProcessSampler, "sample"),
    ("decoding text and grading", Grader, "grade"),
    ("update: model, forward", policy.Policy, "response_states"),
    ("update: model, forward", states.Prompts, "__init__"),
    ("update: LM head, loss and their gradients", gradient, "fused_loss"),
    ("update: model, backward", torch.Tensor, "backward"),
    ("update: model, backward", states.Prompts, "backward"),
    ("update: gradient norm", torch.nn.utils, "clip_grad_norm_"),
    ("update: optimizer", torch.optim.AdamW, "step"),
    ("update: metrics", update, "token_metrics"),
    ("update: batching", gradient, "accumulate_gradient"),
]


class Clocks:
    """Seconds by label; an inner function's are taken from the outer one's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inner = [0.0]

    def around(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, timed."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            self.inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                spent = time.perf_counter() - started
                self.seconds[label] = self.seconds.get(label, 0.0) + spent - self.inner.pop()
                self.inner[-1] += spent

        return timed


def profile(steps: int) -> tuple[float, dict[str, float]]:
    """Median seconds of a step, and label → share of all the time."""
    clocks = Clocks()
    for label, owner, name in CLOCKS:
        setattr(owner, name, clocks.around(label, getattr(owner, name)))
    # `update` holds names of its own.
    update.accumulate_gradient = gradient.accumulate_gradient
    config, _ = load_config(None, ["learning_rate=1e-9", "device=cpu"])
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        run.create(config.as_dict(), {})
        parts = build(config)
        with deterministic_algorithms(), Grader(parts.task, config.grading_time_limit) as grader:
            trainer = Trainer(config, run, parts, grader)
            for step in range(1, WARM_UP + steps + 1):
                if step == WARM_UP + 1:
                    clocks.seconds.clear()
                started = time.perf_counter()
                rollout = trainer.roll_out(step)
                trainer.update(rollout, step)
                taken.append(time.perf_counter() - started)
    total = sum(taken[WARM_UP:])
    shares = {label: clocks.seconds.get(label, 0.0) / total for label, _, _ in CLOCKS}
    shares["everything else"] = 1.0 - sum(shares.values())
    return statistics.median(taken[WARM_UP:]), shares


def main() -> None:
    """Profile, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    seconds, shares = profile(arguments.steps)
    print(f"{seconds:.3f} s a step, {torch.get_num_threads()} threads")
    for label, share in shares.items():
        print(f"{label:45s} {share:6.1%}")
    if arguments.json:
        figures = {"machine": describe(), "steps": arguments.steps, "seconds": seconds, "shares": shares}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
