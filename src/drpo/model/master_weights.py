"""Weights in float32 behind a model that computes in bfloat16.

A number of bfloat16 has eight significant bits: a change of less than 1/512 of a weight is lost when it is added there,
and a learning rate of 1e-6 changes weights of 0.01 by 1/10000. So the optimizer steps float32 masters, which the model
gets a rounded copy of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from drpo.model.precision import Precision, set_precision


class MasterWeights:
    """Float32 copies of the trainable parameters of ``model``, which is then set to ``precision``.

    Gradients of the model are moved to the masters as soon as they are made, and add up there in float32 over
    micro-batches; the model's own ``grad`` stays empty.

    Raises:
        ConfigError: the model has no such precision.
    """

    def __init__(self, model: Any, precision: Precision):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.parameters = [torch.nn.Parameter(parameter.detach().clone()) for parameter in trained]
        set_precision(model, precision)
        self._pairs = list(zip(self.parameters, trained, strict=True))
        for master, parameter in self._pairs:
            parameter.register_post_accumulate_grad_hook(partial(_move_gradient, master))

    @torch.no_grad()
    def publish(self, *_: Any) -> None:
        """Round the masters into the model; to be called after every step (also as an optimizer's hook)."""
        for master, parameter in self._pairs:
            parameter.copy_(master)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the masters themselves, to be saved."""
        rounded = [parameter.data for _, parameter in self._pairs]
        for master, parameter in self._pairs:
            parameter.data = master.data
        try:
            yield
        finally:
            for (_, parameter), data in zip(self._pairs, rounded, strict=True):
                parameter.data = data


def _move_gradient(master: torch.nn.Parameter, parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    if master.grad is None:
        master.grad = parameter.grad.float()
    else:
        master.grad += parameter.grad
    parameter.grad = None
