"""Every objective goes through torch.compile in one graph, with the gradient that it has without."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import drpo
from drpo.objectives import OBJECTIVES

pytestmark = pytest.mark.slow

N, K = 48, 20


def fields(topk: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def logprobs(*shape: int) -> torch.Tensor:
        return -0.05 - 3.0 * torch.rand(*shape, generator=generator)

    given: dict[str, Any] = {
        "behavior_logprobs": logprobs(N),
        "proximal_logprobs": logprobs(N),
        "advantages": torch.randn(N, generator=generator),
        "entropy": torch.rand(N, generator=generator),
        "sequence_ids": torch.arange(N) // 8,
    }
    if topk:
        likely = torch.randn(N, K, generator=generator).log_softmax(-1) - 0.1
        given |= {
            "topk_behavior_logprobs": likely,
            "topk_logprobs": likely + 0.01,
            "topk_is_sampled": torch.zeros(N, K, dtype=torch.bool),
        }
    return given


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_graph_and_the_same_gradient(name: str) -> None:
    objective = drpo.make_objective(name)
    given = fields(objective.topk > 0)

    def loss_of(logprobs: torch.Tensor) -> torch.Tensor:
        batch = drpo.TokenBatch(logprobs, **given, validate=False)
        return drpo.aggregate(objective(batch).loss, batch, "sequence_sum", float(N), 8)

    start = given["behavior_logprobs"] + 0.2 * torch.sin(torch.arange(N))
    gradients = []
    for function in (loss_of, torch.compile(loss_of, fullgraph=True, backend="aot_eager")):
        leaf = start.clone().requires_grad_(True)
        function(leaf).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    torch._dynamo.reset()
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
    assert gradients[0].any()
