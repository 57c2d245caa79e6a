"""Part ``sampling``: our sampler against transformers' `generate`, on models of real shapes with random weights.

bfloat16; ours also with CUDA graphs. No response ends before its last token, so that all make as many tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from drpo.bench import sampler
from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, release_memory
from drpo.bench.gpu import Cases
from drpo.bench.gpu.steps import QUICK, SHAPES, SIZES, TINY
from drpo.bench.models import make_model
from drpo.model.policy import Policy, load_policy
from drpo.tasks import make_task

Sizes = tuple[int, int, int]
#: Policy, token ids of the prompts, responses to each, their tokens → name and turn of each variant.
Variants = Callable[[Policy, list[list[int]], int, int], dict[str, Callable[[], Turn]]]


def cases(settings: Settings) -> Cases:
    """A case a shape."""
    sizes = QUICK if settings.quick else SIZES

    def variants(policy: Policy, ids: list[list[int]], count: int, length: int) -> dict[str, Callable[[], Turn]]:
        return sampler.of_policy(policy, ids, count, length, stops=False, static=True, compiled=settings.compiled)

    for name in TINY if settings.quick else SHAPES:
        yield title(name, sizes), case(settings, name, sizes, variants)


def title(name: str, sizes: Sizes) -> str:
    """For people."""
    prompts, group, length = sizes
    return f"{name}'s shape, {prompts} × {group} responses of {length} tokens"


def case(settings: Settings, name: str, sizes: Sizes, variants: Variants) -> Callable[[Watch], list[Row]]:
    """What measures ``variants`` and the floor on the shape ``name``."""
    prompts, group, length = sizes
    on_gpu = settings.device.startswith("cuda")

    def work(watch: Watch) -> list[Row]:
        with tempfile.TemporaryDirectory() as folder:
            watch(f"{name}: making random weights")
            model = make_model(Path(folder) / "model", name)
            policy = load_policy(str(model), torch.device(settings.device), "bf16" if on_gpu else "fp32")
        task = make_task("sums")
        ids = [policy.encode(task.training_example(0, index).prompt) for index in range(prompts)]
        turns = variants(policy, ids, group, length)
        turns[sampler.FLOOR] = sampler.floor(policy, ids, group, length, settings)
        found = Case(
            title=title(name, sizes),
            sizes={"prompts": prompts, "group": group, "length": length},
            variants=turns,
            baselines=(sampler.FLOOR, sampler.GENERATE),
            per_token=True,
            rounds=settings.rounds or (1 if settings.quick else 3),
        )
        rows = measure(found, watch, survive=(Exception,))
        del policy, turns, found
        release_memory()
        return rows

    return work
