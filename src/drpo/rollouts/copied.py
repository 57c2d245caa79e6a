"""The sampler with a model of its own: in another precision than the trainer's, or at older weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch

from drpo.errors import DataError
from drpo.model.decoding.ways import inherit_choice
from drpo.model.precision import Precision, set_precision
from drpo.rollouts.in_process import InProcessSampler


class CopySampler(InProcessSampler):
    """Samples in the same process from a copy of a model, in ``precision`` and at the weights it was last given.

    Args:
        model: any causal LM of transformers; its present weights are the first.
        precision: the copy's.
        stop_ids, options: as in :class:`drpo.rollouts.InProcessSampler`.

    Raises:
        ConfigError: the model has no such precision.
    """

    def __init__(self, model: Any, precision: Precision, stop_ids: Collection[int], **options: Any):
        own = copy.deepcopy(model).requires_grad_(False)
        inherit_choice(own, model)
        super().__init__(set_precision(own, precision), stop_ids, **options)

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """See :class:`drpo.rollouts.Sampler`.

        Raises:
            DataError: a parameter of the model is missing or has another shape.
        """
        for name, parameter in self.model.named_parameters():
            given = weights.get(name)
            if given is None or given.shape != parameter.shape:
                found = "missing" if given is None else f"of shape {list(given.shape)}"
                raise DataError(
                    f"the weights given to the sampler do not fit its model: {name} is {found}, the model "
                    f"has {list(parameter.shape)}. Give the parameters of the model that is trained."
                )
            parameter.copy_(given)
