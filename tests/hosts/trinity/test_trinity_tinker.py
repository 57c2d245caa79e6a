"""The loss inside Trinity's Tinker trainer: its datums, its `_loss_func`, one response a call."""

import logging

import pytest
import torch
from trinity.common.config import Config
from trinity.trainer.tinker.tinker_trainer import TinkerTrainerWrapper
from trinity.trainer.tinker.utils import to_tinker_input

from drpo.aggregation import Mode
from drpo.integrations.parity import Padded, compare, names, tolerance
from drpo.integrations.trinity.parity import algorithm, experiences


def trainer(config):
    """Trinity's trainer without a service: its own `_init_algorithm`, nothing else of its start."""
    made = object.__new__(TinkerTrainerWrapper)
    made.config, made.logger = Config(), logging.getLogger(__name__)
    made.config.algorithm = config
    made.config.algorithm.algorithm_type = "grpo"
    made._init_algorithm()
    return made


class TinkerPath:
    """The whole update in one `_loss_func`, as the SDK calls it; micro-batches are not Trinity's there."""

    host = "Trinity-RFT (Tinker)"
    version = ""
    dtype = torch.float64
    modes: tuple[Mode, ...] = ("sequence_mean", "sequence_sum")
    objectives = tuple(names())

    def gradient(self, settings, padded: Padded, mode: Mode, micro_batches: int = 1):
        made = trainer(algorithm(settings, mode))
        datums, _, made.model_inputs_list = to_tinker_input(experiences(padded), made.logger)
        leaf = padded.logprobs.clone().requires_grad_(True)
        for inputs, row in zip(made.model_inputs_list, padded.behavior_logprobs, strict=True):
            inputs["ref_logprob"] = row  # of a reference model; the KL is off
        found = []
        for datum, row, length in zip(datums, leaf, padded.kept_lengths(), strict=True):
            prompt = datum.model_input.length - length
            found.append(torch.cat([torch.full((prompt,), -3.0).to(row), row[:length]]))
        loss, metrics = made._loss_func(datums, found)
        assert "actor/drpo/beyond_delta" in metrics
        loss.backward()
        assert leaf.grad is not None
        return leaf.grad


PATH = TinkerPath()


@pytest.mark.parametrize("mode", PATH.modes)
@pytest.mark.parametrize("name", PATH.objectives)
def test_parity(name, mode):
    assert compare(PATH, {"name": name}, mode).worst <= tolerance(PATH)
