"""Measures, in this fresh process, what an update and a batch of sampling take above weights and optimizer.

python memory_peak.py MODEL key=value…      prints {"training": [bytes, estimated], "sampling": [bytes, estimated]}
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from drpo.model.policy import load_policy
from drpo.rollouts import InProcessSampler, Request, Response
from drpo.tasks.base import Example
from drpo.tasks.grading.grader import Grade
from drpo.train.config_layers import load_config
from drpo.train.memory.estimate import estimate, sketch
from drpo.train.rollout import Sample
from drpo.train.settings import update_settings
from drpo.train.update import update_policy

PROMPT = 32


def main(model: str, settings: list[str]) -> dict[str, list[int]]:
    """Full-length responses, so that every micro-batch is as large as it may be."""
    torch.set_num_threads(1)
    config, _ = load_config(None, [f"model={model}", "device=cpu", *settings])
    policy = load_policy(
        config.model, torch.device("cpu"), config.precision, config.lora, config.gradient_checkpointing
    )
    optimizer = torch.optim.AdamW(policy.trained_parameters(), lr=1e-5, fused=True)
    prompts = [[2 + row % 10] * PROMPT for row in range(config.prompts_per_step)]
    length = config.max_new_tokens
    response = Response([3] * length, [-3.0] * length, "length")
    samples = [
        Sample(Example("", "", {}), prompt, response, "", Grade(1.0, None))
        for prompt in prompts
        for _ in range(config.group_size)
    ]
    advantages = [1.0 if row % 2 else -1.0 for row in range(len(samples))]
    sampler = InProcessSampler(policy.model, frozenset())
    requests = [Request(prompt, config.group_size, 0) for prompt in prompts]
    need = estimate(sketch(config.model, config.lora), config, torch.device("cpu"), PROMPT)

    objective = config.make_objective()
    of_update = update_settings(config, objective, policy.device)

    def update() -> None:
        update_policy(policy, optimizer, objective, samples, advantages, of_update)

    update()  # the first one makes the optimizer's states, when its activations are gone
    always = need.during("always")
    return {
        "sampling": [peak(lambda: sampler.sample(requests, config.sampling())), need.during("sampling") - always],
        "training": [peak(update), need.during("training") - always],
    }


def peak(work: Callable[[], Any]) -> int:
    """The most resident bytes above those before ``work``."""
    gc.collect()
    functools.partial(getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None), 0)()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return resident("VmHWM") - before


def resident(line: str) -> int:
    """Bytes of a line of /proc/self/status."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(text.split(f"{line}:")[1].split()[0])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2:])))
