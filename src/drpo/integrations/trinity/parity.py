"""Parity's batch through both trainers of Trinity-RFT, from its experiences to the gradient on the log-probabilities.

verl: Trinity's batch of experiences and its conversion, verl's micro-batches, Trinity's ``TrinityPolicyLoss``; each
micro-batch is differentiated by itself and ranks are averaged, which is what verl's FSDP engine does. Tinker: Trinity's
datums and its ``_loss_func``, as the SDK calls it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from tensordict import TensorDict
from trinity.algorithm import ENTROPY_LOSS_FN, KL_FN
from trinity.common.config import AlgorithmConfig
from trinity.common.experience import Experience
from trinity.trainer.verl.losses import TrinityPolicyLoss
from trinity.trainer.verl.monkey_patch import left_right_2_no_padding
from trinity.trainer.verl.utils import to_data_proto
from verl.utils import tensordict_utils as tu
from verl.workers.engine.utils import prepare_micro_batches

from drpo.aggregation import MODES, Mode
from drpo.integrations.parity import HORIZON, PROMPTS, Padded, names
from drpo.integrations.trinity import NAME

#: Our aggregation → Trinity's.
TRINITY_MODES = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "sequence_sum": "seq-mean-token-sum-norm",
}

logger = logging.getLogger(__name__)


def algorithm(settings: Mapping[str, Any], mode: Mode, **arguments: Any) -> AlgorithmConfig:
    """Trinity's section ``algorithm`` for an objective's settings, as its validator completes it.

    The batches here are far from on-policy on purpose.
    """
    made = {
        "objective": settings["name"],
        "parameters": {key: settings[key] for key in settings if key != "name"},
        "loss_agg_mode": TRINITY_MODES[mode],
        "mismatch_limit": 100.0,
        **({"horizon": HORIZON} if mode == "sequence_sum" else {}),
        **arguments,
    }
    return AlgorithmConfig(
        policy_loss_fn=NAME,
        policy_loss_fn_args=made,
        loss_agg_mode=made["loss_agg_mode"],
        kl_loss_fn="none",
        kl_loss_fn_args=KL_FN.get("none").default_args(),
        entropy_loss_fn="none",
        entropy_loss_fn_args=ENTROPY_LOSS_FN.get("none").default_args(),
    )


def experiences(padded: Padded) -> list[Experience]:
    """The rows without their padding, as Trinity's explorer writes them; each token is the index of its row."""
    return [
        Experience(
            tokens=torch.full((PROMPTS[row % len(PROMPTS)] + length,), row, dtype=torch.int32),
            prompt_length=PROMPTS[row % len(PROMPTS)],
            logprobs=padded.behavior_logprobs[row, :length],
            advantages=padded.advantages[row].expand(length),
            action_mask=padded.mask[row, :length],
            reward=0.0,
        )
        for row, length in enumerate(padded.kept_lengths())
    ]


def training_batch(padded: Padded, micro_batches: int, *, tokens: int, sequences: int, ranks: int) -> TensorDict:
    """What a worker has after Trinity's trainer and the start of verl's engine: one rank's rows of an update."""
    batch = to_data_proto(experiences(padded), 0, torch.nn.Identity(), logger)  # pyright: ignore[reportArgumentType]
    width = batch.batch["responses"].shape[1]
    batch.batch["old_log_probs"] = padded.proximal_logprobs[:, :width]
    data = left_right_2_no_padding(batch.to_tensordict())
    tu.assign_non_tensor(
        data,
        batch_num_tokens=tokens,
        global_batch_size=sequences,
        dp_size=ranks,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=len(padded.mask) // micro_batches,
    )
    return data


def model_output(logprobs: torch.Tensor, part: TensorDict) -> torch.Tensor:
    """What the model returns for a micro-batch of ``logprobs`` ``[B, T]``: jagged, prompts included, a token early."""
    parts = []
    for tokens in part["input_ids"].unbind():
        row = int(tokens[0])
        prompt = PROMPTS[row % len(PROMPTS)]
        before, after = torch.full((prompt - 1,), -3.0), torch.full((1,), -7.0)
        parts.append(torch.cat([before.to(logprobs), logprobs[row, : len(tokens) - prompt], after.to(logprobs)]))
    return torch.nested.as_nested_tensor(parts, layout=torch.jagged)


class TrinityPath:
    """Trinity with verl's workers, a :class:`drpo.integrations.parity.HostPath`."""

    host = "Trinity-RFT"
    version = version("trinity-rft")
    dtype = torch.float64
    modes: tuple[Mode, ...] = MODES  # pyright: ignore[reportAssignmentType]
    objectives = tuple(names(("proximal_logprobs",)))

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        return self.step(algorithm(settings, mode), padded, micro_batches)[0]

    def step(
        self, config: AlgorithmConfig, padded: Padded, micro_batches: int = 1, ranks: int = 1
    ) -> tuple[torch.Tensor, list[dict[str, float]]]:
        """``[B, T]`` gradient of an update that is dealt to ``ranks``, and the metrics of each micro-batch."""
        leaf = padded.logprobs.clone().requires_grad_(True)
        tokens, sequences, metrics = int(padded.mask.sum()), len(padded.mask), []
        size = sequences // ranks
        for start in range(0, sequences, size):
            rank = padded.rows(start, start + size)
            data = training_batch(rank, micro_batches, tokens=tokens, sequences=sequences, ranks=ranks)
            loss = TrinityPolicyLoss(config)
            for part in prepare_micro_batches(data)[0]:
                value, found = loss({"log_probs": model_output(leaf[start : start + size], part)}, part)
                (value / ranks).backward()
                metrics.append(found)
        assert leaf.grad is not None
        return leaf.grad, metrics


def make_path() -> TrinityPath:
    return TrinityPath()
