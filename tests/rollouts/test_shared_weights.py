"""Weights that another process reads."""

from __future__ import annotations

import os

import torch

from drpo.rollouts.engine.shared_weights import ALIGNMENT, SharedWeights, read_weights


def read(shared: SharedWeights) -> dict[str, torch.Tensor]:
    return dict(read_weights(shared.descriptor, shared.entries))


def test_every_type_and_shape_arrives_bit_for_bit():
    given = {
        "odd": torch.randn(3, 7),
        "transposed": torch.randn(4, 5).t(),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(5).bfloat16(),
        "scalar": torch.tensor(2.5),
        "gradient": torch.randn(2, requires_grad=True),
        "whole": torch.arange(5),
    }
    shared = SharedWeights()
    for weights in (given, {"other": torch.randn(100)}, {}, given):  # grown and shrunk
        shared.write(weights)
        found = read(shared)
        assert list(found) == list(weights)
        for name, tensor in weights.items():
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    shared.close()


def test_tied_weights_lie_there_once_under_both_names():
    weight = torch.randn(ALIGNMENT)
    shared = SharedWeights()
    shared.write({"head": weight, "between": torch.ones(1), "embedding": weight, "equal": weight.clone()})
    assert os.fstat(shared.descriptor).st_size == 2 * weight.nbytes + ALIGNMENT
    found = read(shared)
    assert torch.equal(found["head"], weight) and torch.equal(found["embedding"], weight)
    shared.close()


def test_what_was_read_is_not_changed_by_the_next_write():
    shared = SharedWeights()
    shared.write({"weight": torch.ones(10)})
    before = read(shared)["weight"]
    shared.write({"weight": torch.zeros(10)})
    assert before.sum() == 10 and read(shared)["weight"].sum() == 0
    shared.close()
