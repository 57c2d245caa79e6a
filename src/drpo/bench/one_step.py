"""`python -m drpo.bench.one_step JSON` makes training steps of one library and prints their figures as JSON.

The process is one library's alone: what it held at most is then that library's. Weights may be random, so that no
reward is earned; half of the responses count as right, whatever they say, and every response has a backward pass.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from drpo.allocator import keep_freed_memory
from drpo.bench.clocks import Clocks, four_parts, of_trainer, of_trl
from drpo.bench.frame import Turn, synchronize
from drpo.bench.peak import highest_resident
from drpo.bench.step import our_steps, trl_turns
from drpo.tasks import make_task
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.memory.report import report_memory
from drpo.train.rollout import Rollout


@dataclass(frozen=True, kw_only=True)
class Work:
    """The steps.

    Args:
        model: directory of the model.
        device: a torch device.
        prompts, group, length: prompts of a step, responses to each, and their tokens at most.
        warm_up, steps: steps that are not counted, and those that are.
        compiled: decode through torch.compile.
        bf16: compute in bfloat16.
    """

    model: str
    device: str
    prompts: int
    group: int
    length: int
    warm_up: int = 1
    steps: int = 1
    compiled: bool = False
    bf16: bool = False

    def configuration(self) -> TrainConfig:
        """Ours."""
        settings = {
            "model": self.model,
            "task": "sums",
            "device": self.device,
            "prompts_per_step": self.prompts,
            "group_size": self.group,
            "max_new_tokens": self.length,
            "updates_per_step": 1,
            "learning_rate": 1e-9,
        }
        found = [f"{key}={value}" for key, value in settings.items()]
        found += ["precision=bf16"] if self.bf16 else []
        found += ["sampler.compiled=true"] if self.compiled else []
        return load_config(None, found)[0]


def ours(work: Work, folder: Path) -> list[Turn]:
    """Each of our steps as `drpo train` makes them, with the memory report's figures beside the peaks."""
    keep_freed_memory()
    config = work.configuration()
    clocks = Clocks(lambda: synchronize(work.device))
    clocks.put_around(of_trainer())
    need = report_memory(config, torch.device(work.device)).need
    peaks: dict[str, float] = {
        "reported_sampling_bytes": need.during("sampling"),
        "reported_training_bytes": need.during("training"),
    }

    def between(rollout: Rollout) -> Rollout:
        if work.device.startswith("cuda"):
            peaks["sampling_peak_bytes"] = torch.cuda.max_memory_allocated(work.device)
            torch.cuda.reset_peak_memory_stats(work.device)
        return dataclasses.replace(
            rollout, advantages=[1.0 if row % 2 else -1.0 for row in range(len(rollout.samples))]
        )

    turns = []
    with our_steps(config, folder, between=between) as step:
        for _ in range(work.warm_up + work.steps):
            clocks.take()
            if work.device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats(work.device)
            began = time.process_time()
            turn = step()
            peaks["cpu_seconds"] = time.process_time() - began
            if work.device.startswith("cuda"):
                peaks["training_peak_bytes"] = torch.cuda.max_memory_allocated(work.device)
            turns.append(dataclasses.replace(turn, figures={**four_parts(clocks.take()), **peaks}))
    return turns


def trl(work: Work, folder: Path, **changes: Any) -> list[Turn]:
    """Each of TRL's steps; ``changes`` are arguments of GRPOConfig."""
    config = work.configuration()
    clocks = Clocks(lambda: synchronize(work.device))
    clocks.put_around(of_trl())
    task = make_task(config.task.name, **config.task.parameters)
    examples = [task.training_example(config.seed, index) for index in range(work.prompts)]
    prompts = [[{"role": "user", "content": example.prompt}] for example in examples]

    def reward(prompts: list[Any], **_: Any) -> list[float]:
        return [float(row % 2) for row in range(len(prompts))]

    began = [time.process_time()]

    def figures() -> Mapping[str, float]:
        spent, began[0] = time.process_time() - began[0], time.process_time()
        return {**four_parts(clocks.take()), "cpu_seconds": spent}

    return trl_turns(config, work.warm_up + work.steps, folder, prompts, reward, changes, figures)


def trl_with_liger(work: Work, folder: Path) -> list[Turn]:
    """With Liger's kernels in the model's layers."""
    return trl(work, folder, use_liger_kernel=True)


LIBRARIES = {"drpo Trainer": ours, "TRL GRPOTrainer": trl, "TRL with Liger": trl_with_liger}


def main() -> None:
    """Make the steps that the command line's JSON describes."""
    given = json.loads(sys.argv[1])
    work, library = Work(**given["work"]), LIBRARIES[given["library"]]
    with tempfile.TemporaryDirectory() as folder:
        try:
            turns = library(work, Path(folder))[work.warm_up :]
            phases = [value for turn in turns for key, value in turn.figures.items() if key.endswith("_peak_bytes")]
            found = {"turns": [asdict(turn) for turn in turns], "peak_bytes": max(phases, default=peak(work.device))}
        except torch.OutOfMemoryError:
            found = {"out_of_memory": True}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def peak(device: str) -> int | None:
    """Highest memory: of the card, or of this process; None where the system does not say."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else highest_resident()


if __name__ == "__main__":
    main()
