"""Parity's batch through ms-swift's ``compute_loss`` with our trainer.

What stands in: a model whose outputs are the log-probabilities themselves, and the set-up of the trainer (model, data,
engine), which is left out. As in transformers' trainer, the base of ms-swift's, the loss of a micro-batch is divided by
the micro-batches of the update before ``backward``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from swift.rl_core.data import GRPOBatch

from drpo.aggregation import MODES as OURS
from drpo.aggregation import Mode
from drpo.integrations.ms_swift import use
from drpo.integrations.ms_swift.trainer import MODES, DRPOTrainer
from drpo.integrations.parity import HORIZON, Padded, names

LOSS_TYPES = {mode: loss_type for loss_type, mode in MODES.items()}


class Prepared(DRPOTrainer):
    """The trainer as it is after its set-up, with ``logprobs`` in place of the forward pass."""

    def __init__(self, loss_type: str, micro_batches: int = 1, *, overlong_filter: bool = False) -> None:
        self.model = torch.nn.Identity().train()
        self.args = SimpleNamespace(
            gradient_accumulation_steps=micro_batches,
            steps_per_generation=micro_batches,
            per_device_train_batch_size=8,
            report_to=[],
        )
        self.accelerator = Accelerator(cpu=True)
        self.template = SimpleNamespace(padding_free=False)
        self.loss_type, self.overlong_filter = loss_type, overlong_filter
        self.max_completion_length, self.compute_loss_func = HORIZON, None
        self.dynamic_num_samples = self.use_liger_loss = self.model_accepts_loss_kwargs = False
        self.disable_rollout_importance_sampling = False
        self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
        self.start()

    def _get_per_token_logps_and_entropies(
        self, model: Any, model_inputs: dict[str, Any], grpo_batch: GRPOBatch, **_: Any
    ) -> tuple[torch.Tensor, None]:
        return model_inputs["input_ids"], None


def batch(padded: Padded, tokens: int) -> GRPOBatch:
    """What ms-swift prepares for one micro-batch of an update of ``tokens`` tokens."""
    rows, width = padded.mask.shape
    return GRPOBatch(
        completion_mask=padded.mask,
        truncated_mask=torch.zeros(rows, dtype=torch.bool),
        seq_lengths=torch.full((rows,), width),
        old_per_token_logps=padded.proximal_logprobs,
        rollout_per_token_logps=padded.behavior_logprobs,
        advantages=padded.advantages.unsqueeze(1).expand(rows, width),
        num_items_in_batch=torch.tensor(float(tokens)),
    )


def step(trainer: Prepared, padded: Padded, micro_batches: int = 1) -> torch.Tensor:
    """``[B, T]``: the gradient of one update."""
    tokens, gradients = int(padded.mask.sum()), []
    for part in padded.micro_batches(micro_batches):
        leaf = part.logprobs.clone().requires_grad_(True)
        inputs = {"model_inputs": {"input_ids": leaf}, "grpo_batch": batch(part, tokens)}
        (trainer.compute_loss(trainer.model, inputs) / micro_batches).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    return torch.cat(gradients)


class MsSwiftPath:
    host = "ms-swift"
    version = version("ms-swift")
    dtype = torch.float64
    modes: tuple[Mode, ...] = OURS  # pyright: ignore[reportAssignmentType]
    objectives = tuple(names(("proximal_logprobs",)))

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        # The batch is far from on-policy on purpose.
        use(settings["name"], {key: settings[key] for key in settings if key != "name"}, mismatch_limit=100.0)
        return step(Prepared(LOSS_TYPES[mode], micro_batches), padded, micro_batches)


def make_path() -> MsSwiftPath:
    return MsSwiftPath()
