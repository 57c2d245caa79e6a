"""Parity's batch through UniRL: its train stack, its packed segments and micro-batch weights, its aggregation.

What stands in are the model, whose log-probabilities are leaves, and FSDP, of which one process has no need.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from unirl.algorithms import StageAlgorithm
from unirl.train.stack.base import TrainStack
from unirl.types.sample import Part
from unirl.types.segments.text import TextSegment

from drpo.aggregation import Mode
from drpo.integrations.parity import HORIZON, MASKED, Padded, names
from drpo.integrations.unirl import DRPOAlgorithm

#: Our aggregation → UniRL's.
MODES: dict[Mode, str] = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "sequence_sum": "seq-mean-token-sum-norm",
}


class Stage:
    """A model whose log-probabilities are a table: a token's id is its place there.

    UniRL's pass without gradients, before the first update, finds π_old.
    """

    def __init__(self, logprobs: torch.Tensor, proximal: torch.Tensor) -> None:
        self.logprobs, self.proximal = logprobs.flatten(), proximal.flatten()

    def replay(self, conditions: object, *, segment: TextSegment, temperature: float) -> torch.Tensor:
        return (self.logprobs if torch.is_grad_enabled() else self.proximal)[segment.tokens]


class OneProcess:
    """What UniRL's train stack asks of its FSDP backend."""

    grad_sync_deferred = False
    optimizer = scheduler = None

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1)

    def trainable_module(self) -> torch.nn.Module:
        return self.model

    def zero_grad(self) -> None: ...

    def set_grad_sync(self, on: bool) -> None: ...

    def on_rollout_end(self) -> None: ...

    def optimizer_step(self, max_grad_norm: float) -> float:
        return 1.0

    def gradient_average_world_size(self) -> int:
        return 1

    def all_reduce_loss_sums(self, values: list[float]) -> list[float]:
        return values


def part_of(padded: Padded, masked: tuple[int, ...] = MASKED) -> Part:
    """The rows of ``padded`` as a rollout worker hands them to the train stack, with that many masked tokens more."""
    kept = padded.kept_lengths(masked)

    def rows(values: torch.Tensor) -> list[torch.Tensor]:
        return [row[:length] for row, length in zip(values, kept, strict=True)]

    segment = TextSegment.pack(
        tokens=rows(torch.arange(padded.mask.numel()).reshape(padded.mask.shape)),
        log_probs=rows(padded.behavior_logprobs),
        loss_mask=rows(padded.mask.to(padded.logprobs.dtype)),
    )
    ids = [str(row) for row in range(len(kept))]
    return Part(sample_ids=ids, segment=segment, advantages=padded.advantages)


def step(algorithm: StageAlgorithm, part: Part, micro_batches: int) -> Any:
    """UniRL's optimizer step over ``part``; its result, with the metrics."""
    size = len(part.sample_ids) // micro_batches
    backend: Any = OneProcess()
    stack = TrainStack(fsdp_backend=backend, algorithm=algorithm, micro_batch_size=size, max_grad_norm=1.0)
    return stack.train_track(part, training_progress=0.0)


class UniRLPath:
    """Our objectives in our algorithm: a :class:`drpo.integrations.parity.HostPath`."""

    host = "UniRL"
    version = version("unirl")
    dtype = torch.float64
    modes: tuple[Mode, ...] = tuple(MODES)
    objectives = tuple(names(("proximal_logprobs",)))

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        parameters = {key: settings[key] for key in settings if key != "name"}
        leaf = padded.logprobs.clone().requires_grad_(True)
        algorithm = DRPOAlgorithm(
            pipeline=SimpleNamespace(ar=Stage(leaf, padded.proximal_logprobs)),
            objective=settings["name"],
            parameters=parameters,
            loss_agg_mode=MODES[mode],
            horizon=HORIZON,
            sampling_temperature=1.0,
            old_logp_source="replay",
            mismatch_limit=1e9,
        )
        step(algorithm, part_of(padded), micro_batches)
        assert leaf.grad is not None
        return leaf.grad


def make_path() -> UniRLPath:
    return UniRLPath()
