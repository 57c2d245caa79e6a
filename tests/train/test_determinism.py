"""The same gradient, bit for bit, however two threads share its sums: every way to a gradient, on real models."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from drpo.model.policy import Policy, load_policy
from drpo.rollouts import Response
from drpo.run_directory import RunDirectory
from drpo.tasks.base import Example
from drpo.tasks.grading.grader import Grade
from drpo.train import settings
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.determinism import deterministic_algorithms
from drpo.train.gradient import accumulate_gradient
from drpo.train.loop import train
from drpo.train.observer import Observer
from drpo.train.rollout import Sample

pytestmark = pytest.mark.slow

#: Few prompts with many responses: their shares of the prompts' gradient meet in the same places.
PROMPTS, RESPONSES, LENGTH = 2, 48, 24
CASES = [
    "seed=0",
    "micro_batch_tokens=512",
    "updates_per_step=16",
    "gradient_checkpointing=true",
    "lora.rank=8",
    "precision=bf16",
    "precision=fp8",
    "aggregation=token_mean",
    "objective=m2po",
    "objective=gspo",
    "objective=dppo_topk_tv",
    "objective=troll",
    "model=embedded:moe",
    "model=embedded:moe gradient_checkpointing=true",
    "model=embedded:moe precision=bf16",
    "model=embedded:moe router_replay=true",
    "model=embedded:hybrid",
]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def drawn_samples(policy: Policy, topk: int, count: int) -> list[Sample]:
    """``count`` responses to two prompts; all tokens, and all experts, are random."""
    draw = torch.Generator().manual_seed(0)
    vocabulary = policy.model.config.vocab_size
    prompts = [torch.randint(vocabulary, (64 + i,), generator=draw).tolist() for i in range(PROMPTS)]
    made = []
    for row in range(count):
        prompt, length = prompts[row % PROMPTS], LENGTH - row % 5
        ids = torch.randint(vocabulary, (length,), generator=draw).tolist()
        top = torch.rand(length, vocabulary, generator=draw).topk(topk, dim=1).indices.tolist()
        response = Response(
            ids,
            [-3.0] * length,
            "stop",
            top,
            [[-4.0] * topk] * length,
            drawn_experts(policy, len(prompt) + length - 1, draw),
        )
        made.append(Sample(Example("", "", {}), prompt, response, "", Grade(1.0, None), [-3.0] * length))
    return made


def drawn_experts(policy: Policy, positions: int, draw: torch.Generator) -> torch.Tensor | None:
    routers = policy.routers.modules
    if not routers:
        return None
    scores = torch.rand(positions, len(routers), routers[0].num_experts, generator=draw)
    return scores.topk(routers[0].top_k, dim=-1).indices


def gradient(policy: Policy, samples: list[Sample], config: TrainConfig) -> list[torch.Tensor]:
    for parameter in policy.trained_parameters():
        parameter.grad = None
    advantages = [1.0 if row % 3 else -2.0 for row in range(len(samples))]
    accumulate_gradient(
        policy,
        config.make_objective(),
        samples,
        advantages,
        settings.reduction(config),
        settings.forward_settings(config, policy.device),
    )
    return [parameter.grad for parameter in policy.trained_parameters() if parameter.grad is not None]


@pytest.mark.parametrize("case", CASES)
def test_a_gradient_is_the_same_every_time(case: str) -> None:
    config, _ = load_config(None, case.split())
    policy = load_policy(
        config.model, torch.device("cpu"), config.precision, config.lora, config.gradient_checkpointing
    )
    if config.router_replay:
        policy.replay_routing()
    samples = drawn_samples(policy, config.make_objective().topk, PROMPTS * RESPONSES // config.updates_per_step)
    with deterministic_algorithms(), warnings.catch_warnings():
        warnings.simplefilter("error")  # an operation without a fixed order warns
        first, *others = (gradient(policy, samples, config) for _ in range(3))
    assert first and sum(float(part.abs().sum()) for part in first) > 0
    for other in others:
        assert all(torch.equal(*pair) for pair in zip(first, other, strict=True))


def test_threads_add_up_an_indexed_gradient_in_a_fixed_order() -> None:
    draw = torch.Generator().manual_seed(0)
    places, upstream = torch.randint(0, 50, (3000,), generator=draw), torch.randn(3000, 128, generator=draw)

    def once() -> torch.Tensor:
        table = torch.zeros(50, 128, requires_grad=True)
        table[places].backward(upstream)
        assert table.grad is not None
        return table.grad

    with deterministic_algorithms():
        first = once()
        assert all(torch.equal(first, once()) for _ in range(50))


@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_the_mode_of_the_process_is_restored(before: tuple[bool, bool]) -> None:
    def mode() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    enabled, warn_only = before
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    try:
        with pytest.raises(KeyError), deterministic_algorithms():
            assert mode()[0]
            assert mode()[1] or before == (True, False)  # who asked for errors gets them
            raise KeyError
        assert mode() == before
        assert memory.fill_uninitialized_memory == fills
    finally:
        torch.use_deterministic_algorithms(False)


def test_training_is_within_it_and_leaves_the_process_as_it_was(copyist: Path, tmp_path: Path) -> None:
    class Look(Observer):
        modes: ClassVar[list[bool]] = []

        def on_step(self, records: list[dict[str, Any]]) -> None:
            self.modes.append(torch.are_deterministic_algorithms_enabled())

    config, _ = load_config(
        None,
        [
            f"model={copyist}",
            "task=copy",
            "task.length=2",
            "prompts_per_step=2",
            "group_size=2",
            "updates_per_step=1",
            "max_new_tokens=4",
            "steps=1",
            "eval_every=0",
            "eval_examples=1",
            "device=cpu",
        ],
    )
    train(config, RunDirectory(tmp_path / "run"), Look())
    assert Look.modes == [True]
    assert not torch.are_deterministic_algorithms_enabled()
