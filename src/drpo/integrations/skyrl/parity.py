"""Parity's batch through SkyRL: its advantage scaling, its micro-batch iterator, its worker's loss path.

Everything from the trainer's mini-batch to ``backward`` is SkyRL's own code. What stands in: a model whose outputs are
the log-probabilities themselves, one process without a process group, and the CPU where the worker asks for CUDA's
current device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from skyrl.backends.skyrl_train.training_batch import TrainingInputBatch
from skyrl.backends.skyrl_train.utils.ppo_utils import PolicyLossRegistry, apply_loss_reduction_to_advantages_minibatch
from skyrl.backends.skyrl_train.workers.worker import PolicyWorkerBase

from drpo.aggregation import Mode
from drpo.integrations.parity import HORIZON, Padded, names
from drpo.integrations.skyrl import NAME, DRPOAlgorithmConfig, register

#: Ours → SkyRL's ``loss_reduction``.
REDUCTIONS: dict[str, str] = {
    "token_mean": "token_mean",
    "sequence_mean": "sequence_mean",
    "sequence_sum": "seq_mean_token_sum_norm",
}


class Logprobs(torch.nn.Module):
    """A policy whose log-probabilities ``[B, T]`` are its parameters; the first token of a row is its index."""

    def __init__(self, logprobs: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(logprobs.clone())

    def forward(self, sequences: torch.Tensor, num_actions: int, **_: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        rows = self.table[sequences[:, 0]]
        return rows, {"entropy": torch.zeros(len(rows), num_actions + 1)}


class OneProcess:
    """The strategy's part in a loss: backward, and reductions over one rank."""

    def backward(self, loss: torch.Tensor, model: torch.nn.Module, optimizer: object) -> None:
        loss.backward()

    def all_reduce(self, data: dict[str, float], op: str = "mean", group: object = None) -> dict[str, float]:
        return data


@contextmanager
def cpu_for_cuda() -> Iterator[None]:
    """CUDA's current device is the CPU."""
    with mock.patch("torch.cuda.current_device", return_value=torch.device("cpu")):
        yield


def worker(
    model: torch.nn.Module, algorithm: DRPOAlgorithmConfig, micro_batch_size: int, max_tokens: int = -1
) -> PolicyWorkerBase:
    """SkyRL's policy worker around ``model``, its set-up (Ray, devices, process groups) left out."""
    register()
    made = object.__new__(PolicyWorkerBase)
    made.cfg = SimpleNamespace(
        algorithm=algorithm, micro_train_batch_size_per_gpu=micro_batch_size, max_tokens_per_microbatch=max_tokens
    )
    made.model, made.optimizer, made.strategy = model, None, OneProcess()
    made.scheduler = SimpleNamespace(get_last_lr=lambda: [1e-6])
    made.mesh_rank = SimpleNamespace(dp_size=1)
    made.device_mesh = SimpleNamespace(get_group=lambda name: None)
    made.policy_loss_fn = PolicyLossRegistry.get(NAME)
    return made


def training_batch(
    padded: Padded, algorithm: DRPOAlgorithmConfig, micro_batch_size: int, **more: Any
) -> TrainingInputBatch:
    """What SkyRL's trainer hands to a worker for one optimizer step."""
    rows, width = padded.mask.shape
    mask = padded.mask.to(padded.logprobs.dtype)
    scaled = apply_loss_reduction_to_advantages_minibatch(
        padded.advantages.unsqueeze(1).expand(rows, width) * mask,
        mask,
        algorithm.loss_reduction,
        micro_batch_size,
        algorithm.max_seq_len or 0,
        **more,
    )
    data = TrainingInputBatch(
        {
            "sequences": torch.arange(rows).unsqueeze(1).repeat(1, width + 1),
            "attention_mask": torch.ones(rows, width + 1, dtype=torch.long),
            "response_mask": padded.mask.long(),
            "loss_mask": mask,
            "advantages": scaled,
            "rollout_logprobs": padded.behavior_logprobs,
            "action_log_probs": padded.proximal_logprobs,
        }
    )
    data.metadata = {"response_length": width}
    return data


class SkyRLPath:
    host = "SkyRL"
    version = version("skyrl")
    dtype = torch.float64
    modes: tuple[Mode, ...] = ("token_mean", "sequence_mean", "sequence_sum")
    objectives = tuple(names(("proximal_logprobs",), homogeneous_only=True))

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        return self.step(settings, padded, REDUCTIONS[mode], micro_batches)[0]

    def step(
        self, settings: Mapping[str, Any], padded: Padded, reduction: str, micro_batches: int = 1, **more: Any
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """``[B, T]`` gradient and the worker's metrics, under one of SkyRL's ``loss_reduction``."""
        name, parameters = settings["name"], {key: settings[key] for key in settings if key != "name"}
        algorithm = DRPOAlgorithmConfig(
            objective=name,
            parameters=parameters,
            loss_reduction=reduction,
            max_seq_len=HORIZON,
            temperature=1.0,
            use_kl_loss=False,
        )
        size = len(padded.mask) // micro_batches
        model = Logprobs(padded.logprobs)
        with cpu_for_cuda():
            output = worker(model, algorithm, size).forward_backward(training_batch(padded, algorithm, size, **more))
        assert model.table.grad is not None
        return model.table.grad, output.metrics


def make_path() -> SkyRLPath:
    return SkyRLPath()
