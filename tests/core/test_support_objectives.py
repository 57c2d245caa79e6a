"""Every objective and modifier over the supports of truncated sampling.

An objective is a pure function of log-probabilities, so that its gradient over a support is that of plain autograd
through a softmax of the logits inside.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_support import some_support
from test_token_logprobs import triton_here

import drpo
from drpo import Objective, Support, fused_loss, make_objective, token_logprobs
from drpo.objectives import MODIFIERS, OBJECTIVES
from drpo.support import OUTSIDE
from support.objective_facts import FACTS

N, V, H = 36, 17, 5
TEMPERATURE = 1.3
BACKENDS = ["reference", "chunked", pytest.param("triton", marks=triton_here)]
pytestmark = pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning")


def objectives() -> dict[str, Objective]:
    """Every objective, and every modifier on one that it can be combined with."""
    plain = {name: make_objective(name, **FACTS[name].cases[0].parameters) for name in OBJECTIVES}
    modified = {
        f"drpo and {name}": make_objective(
            "drpo", anchor="proximal" if OF_PROXIMAL.get(name, True) else "behavior", modifiers=[name]
        )
        for name in MODIFIERS
    }
    return plain | modified


#: Modifier → whether it needs the objective to be anchored on π_old; those that are not named do.
OF_PROXIMAL = {"score_centering": False, "opsm": False, "entropy_top": False}


@dataclass(frozen=True)
class Problem:
    """Hidden states, head and targets; μ, and what else objectives read, over the same supports."""

    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor
    support: Support
    fields: dict[str, Any]
    topk_ids: torch.Tensor

    def dense(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """``[N, V]``: log π_S by a softmax over the logits inside, OUTSIDE elsewhere."""
        inside = self.support.mask(V)
        logits = (hidden @ weight.T / TEMPERATURE).masked_fill(~inside, -torch.inf)
        return logits.log_softmax(1).masked_fill(~inside, OUTSIDE)

    def topk(self, everything: torch.Tensor) -> dict[str, torch.Tensor]:
        """The field of the top K, from log π_S ``[N, V]``."""
        return {"topk_logprobs": everything.gather(1, self.topk_ids)}

    def at_targets(self, everything: torch.Tensor) -> torch.Tensor:
        return everything.gather(1, self.targets.unsqueeze(1)).squeeze(1)


def problem(objective: Objective) -> Problem:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, weight = normal(N, H), normal(V, H)
    targets = torch.randint(V, (N,), generator=generator)
    support = some_support(targets, V, share=0.5)
    made = Problem(hidden, weight, targets, support, {}, torch.zeros(0))
    mu = made.dense(hidden + 0.4 * normal(N, H), weight)
    old = made.dense(hidden + 0.2 * normal(N, H), weight)
    ids = mu.topk(min(objective.topk, V)).indices
    sequences = torch.arange(N) // 6
    optional = {
        "proximal_logprobs": made.at_targets(old),
        "entropy": torch.special.entr(made.dense(hidden, weight).exp()).sum(1),
        "topk_behavior_logprobs": mu.gather(1, ids),
        "topk_is_sampled": ids == targets.unsqueeze(1),
    }
    fields = {
        "behavior_logprobs": made.at_targets(mu),
        "advantages": normal(N) if objective.token_local else normal(N // 6)[sequences],
        "sequence_ids": sequences,
        **{name: value for name, value in optional.items() if name in objective.needs},
    }
    return Problem(hidden, weight, targets, support, fields, ids)


def loss_of(objective: Objective, logprobs: torch.Tensor, fields: dict[str, Any]) -> torch.Tensor:
    batch = drpo.TokenBatch(logprobs, **fields)
    return drpo.aggregate(objective(batch).loss, batch)


def wanted(objective: Objective, given: Problem) -> tuple[torch.Tensor, ...]:
    """Loss and gradients by plain autograd."""
    leaves = [given.hidden.clone().requires_grad_(True), given.weight.clone().requires_grad_(True)]
    everything = given.dense(*leaves)
    topk = given.topk(everything) if objective.topk else {}
    loss = loss_of(objective, given.at_targets(everything), given.fields | topk)
    return loss.detach(), *torch.autograd.grad(loss + 0.0 * everything.sum(), leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", objectives())
def test_the_token_path_gives_the_gradient_of_the_renormalized_softmax(name: str, backend: str) -> None:
    objective = objectives()[name]
    given = problem(objective)
    hidden, weight = given.hidden.clone().requires_grad_(True), given.weight.clone().requires_grad_(True)
    logprobs, _ = token_logprobs(hidden, weight, given.targets, TEMPERATURE, backend, given.support)
    topk = given.topk(given.dense(hidden, weight)) if objective.topk else {}
    loss = loss_of(objective, logprobs, given.fields | topk)
    gradients = torch.autograd.grad(loss + 0.0 * logprobs.sum(), (hidden, weight))
    expected = wanted(objective, given)
    assert expected[1].abs().max() > 0
    torch.testing.assert_close((loss.detach(), *gradients), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [name for name, objective in objectives().items() if not objective.topk])
def test_fused_loss_gives_the_gradient_of_the_renormalized_softmax(name: str) -> None:
    objective = objectives()[name]
    given = problem(objective)
    hidden, weight = given.hidden.clone().requires_grad_(True), given.weight.clone().requires_grad_(True)
    out = fused_loss(
        hidden, weight, given.targets, objective, temperature=TEMPERATURE, support=given.support, **given.fields
    )
    gradients = torch.autograd.grad(out.loss, (hidden, weight))
    torch.testing.assert_close((out.loss.detach(), *gradients), wanted(objective, given), rtol=1e-9, atol=1e-10)
