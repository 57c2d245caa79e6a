"""Parity's batch through the client half of Tinker: real datums, the SDK's own step from log-probabilities to weights.

The service's half is its documented contract: a cross-entropy Σ −log π · weights, whose gradient on log π is −weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from tinker.lib.public_interfaces import TrainingClient
from tinker.types import Datum, ForwardBackwardOutput, ModelInput, TensorData

from drpo.aggregation import Mode
from drpo.integrations.parity import HORIZON, Padded, names
from drpo.integrations.tinker import count, make_loss


def datums(padded: Padded) -> list[Datum]:
    """One datum a row; what lies outside the mask is there, at mask 0, as a prompt is."""
    mask = padded.mask.float()
    return [
        Datum(
            model_input=ModelInput.from_ints([1] * mask.shape[1]),
            loss_fn_inputs={
                "target_tokens": TensorData.from_torch(torch.full((mask.shape[1],), 2)),
                "logprobs": TensorData.from_torch(padded.behavior_logprobs[row].float()),
                "proximal_logprobs": TensorData.from_torch(padded.proximal_logprobs[row].float()),
                "advantages": TensorData.from_torch((padded.advantages[row] * mask[row]).float()),
                "mask": TensorData.from_torch(mask[row]),
            },
        )
        for row in range(len(mask))
    ]


def forward(padded: Padded) -> ForwardBackwardOutput:
    """What the service's forward pass returns."""
    outputs = [{"logprobs": TensorData.from_torch(row.float())} for row in padded.logprobs]
    return ForwardBackwardOutput(loss_fn_output_type="TorchLossReturn", loss_fn_outputs=outputs)


class TinkerPath:
    host = "Tinker"
    version = version("tinker")
    #: What travels to and from the service.
    dtype = torch.float32
    modes: tuple[Mode, ...] = ("token_mean", "sequence_mean", "sequence_sum")
    objectives = tuple(names(("proximal_logprobs",)))

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        parameters = {key: settings[key] for key in settings if key != "name"}
        denominator = count(datums(padded), mode) if micro_batches > 1 else None
        loss = make_loss(
            settings["name"],
            parameters,
            aggregation=mode,
            denominator=denominator,
            horizon=HORIZON if mode == "sequence_sum" else None,
        )
        rows: list[torch.Tensor] = []
        for part in padded.micro_batches(micro_batches):
            sent = TrainingClient._compute_custom_loss(datums(part), loss, forward(part)).data
            rows += [-datum.loss_fn_inputs["weights"].to_torch() for datum in sent]
        return torch.stack(rows)


def make_path() -> TinkerPath:
    return TinkerPath()
