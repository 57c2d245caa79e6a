"""Score centering: by hand, its expectation under μ, its tail, and what it is not defined on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from drpo import OBJECTIVES, TokenBatch, make_objective
from drpo.errors import ConfigError, DataError

V = 7
#: Objectives of one token's π and μ.
DEFINED = [
    name for name in OBJECTIVES if (made := make_objective(name)).token_local and not made.needs and not made.topk
]


def centered(name: str, k: int = 128, **parameters: Any) -> Any:
    return make_objective(name, modifiers=[{"name": "score_centering", "k": k}], **parameters)


def distributions(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of π, with gradient, and log μ, over V tokens."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(V, generator=generator, dtype=torch.float64).requires_grad_(True)
    mu = (logits.detach() + 0.4 * torch.randn(V, generator=generator, dtype=torch.float64)).log_softmax(0)
    return logits, mu


def batch_of_every_token(logits: torch.Tensor, mu: torch.Tensor, advantage: float, k: int = V) -> TokenBatch:
    """One token of each id, all sampled in the same state; the head holds the k most likely under μ."""
    log_pi = logits.log_softmax(0)
    head = mu.topk(k).indices
    return TokenBatch(
        log_pi,
        mu,
        torch.full((V,), advantage, dtype=torch.float64),
        topk_logprobs=log_pi[head].expand(V, k),
        topk_behavior_logprobs=mu[head].expand(V, k),
    )


def test_by_hand() -> None:
    """π = (.6, .4), μ = (.5, .5), Â = 2, the ratio capped at 1: weights 1 and .8, so that c = 2 · (.5, .4)."""
    pi = torch.tensor([0.6, 0.4], dtype=torch.float64).log()
    mu = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    batch = TokenBatch(
        pi, mu, torch.full((2,), 2.0).double(), topk_logprobs=pi.expand(2, 2), topk_behavior_logprobs=mu.expand(2, 2)
    )
    expected = 1.0 * math.log(0.6) + 0.8 * math.log(0.4)
    found = centered("cispo", ratio_cap=1.0)(batch).loss.tolist()
    assert found == pytest.approx([-2 * math.log(0.6) + expected, -2 * 0.8 * math.log(0.4) + expected], abs=1e-12)


@pytest.mark.parametrize("advantage", [1.5, -0.7])
@pytest.mark.parametrize("name", DEFINED)
def test_what_mu_expects_of_the_update_is_zero(name: str, advantage: float) -> None:
    logits, mu = distributions()
    parameters: Any = {"delta": 0.1} if name == "drpo" else {}
    losses = centered(name, **parameters)(batch_of_every_token(logits, mu, advantage)).loss
    (push,) = torch.autograd.grad((mu.exp() * losses).sum(), logits)
    torch.testing.assert_close(push, torch.zeros(V).double(), rtol=0, atol=1e-12)


def test_the_plain_surrogate_has_nothing_to_center_but_one_that_is_masked_has() -> None:
    logits, mu = distributions()
    batch = batch_of_every_token(logits, mu, 1.0)

    def push(objective: Any) -> torch.Tensor:
        return torch.autograd.grad((mu.exp() * objective(batch).loss).sum(), logits, retain_graph=True)[0]

    assert push(make_objective("surrogate")).abs().max() < 1e-12
    assert push(make_objective("ipo", delta=0.01)).abs().max() > 1e-3
    assert push(centered("ipo", delta=0.01)).abs().max() < 1e-12


@pytest.mark.parametrize(("name", "parameters"), [("cispo", {"ratio_cap": 1.1}), ("grpo", {}), ("surrogate", {})])
def test_the_tail_stands_for_a_policy_in_proportion(name: str, parameters: Any) -> None:
    """With μ replaced by α π outside the head, where the ratio is 1/α, the whole vocabulary gives the same push."""
    logits, mu = distributions()
    k, head = 3, mu.topk(3).indices
    pi = logits.detach().softmax(0)
    alpha = (1 - mu[head].exp().sum()) / (1 - pi[head].sum())
    completed = (alpha * pi).log()
    completed[head] = mu[head]
    short = centered(name, k, **parameters)(batch_of_every_token(logits, mu, 1.0, k)).loss[head[0]]
    (push,) = torch.autograd.grad(short, logits)
    whole = centered(name, **parameters)(batch_of_every_token(logits, completed, 1.0)).loss[head[0]]
    (wanted,) = torch.autograd.grad(whole, logits)
    torch.testing.assert_close(push, wanted, rtol=0, atol=1e-9)


def test_the_form_that_prime_rl_has_over_a_support() -> None:
    """Σ_v sg(μ_v · min(π_v/μ_v, cap) · 1[|π_v − μ_v| ≤ δ]) log π_v, times the advantage, added to IPO's loss."""
    logits, mu = distributions()
    batch = batch_of_every_token(logits, mu, 0.8)
    log_pi = batch.logprobs
    pi, q = log_pi.detach().exp(), mu.exp()
    delta, cap = 0.03, 1.2
    weights = torch.where((pi - q).abs() <= delta, (pi / q).clamp(max=cap), 0.0)
    assert 0 < int((weights > 0).sum()) < V
    wanted = -0.8 * weights * log_pi + 0.8 * (q * weights * log_pi).sum()
    (theirs,) = torch.autograd.grad(wanted[2], logits, retain_graph=True)
    (ours,) = torch.autograd.grad(centered("ipo", delta=delta, ratio_cap=cap)(batch).loss[2], logits)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_places_of_a_head_that_a_small_support_leaves_empty_add_nothing() -> None:
    logits, mu = distributions()
    full = batch_of_every_token(logits, mu, 1.0)
    empty = torch.full((V, 3), -1e4, dtype=torch.float64)
    assert full.topk_logprobs is not None and full.topk_behavior_logprobs is not None
    padded = TokenBatch(
        full.logprobs,
        full.behavior_logprobs,
        full.advantages,
        topk_logprobs=torch.cat([full.topk_logprobs, empty], 1),
        topk_behavior_logprobs=torch.cat([full.topk_behavior_logprobs, empty], 1),
    )
    objective = centered("drpo", delta=0.1)
    torch.testing.assert_close(objective(padded).loss, objective(full).loss, rtol=0, atol=1e-12)


def test_tokens_without_an_advantage_stay_alone() -> None:
    logits, mu = distributions()
    batch = batch_of_every_token(logits, mu, 0.0)
    assert not centered("drpo", delta=0.1)(batch).loss.any()


def test_what_it_is_not_defined_on_is_refused() -> None:
    for name in ("gspo", "m2po", "dppo_topk_tv", "minirl"):
        with pytest.raises(ConfigError, match="score_centering is not defined on"):
            centered(name)
    with pytest.raises(ConfigError, match="anchor=proximal"):
        centered("grpo", anchor="proximal")
    with pytest.raises(ConfigError, match="k must be a whole number"):
        centered("grpo", 0)
    tokens = torch.tensor([-1.0])
    with pytest.raises(DataError, match="needs topk_logprobs"):
        centered("grpo")(TokenBatch(tokens, tokens, tokens))
    assert centered("drpo", 20).topk == 20 and centered("drpo", 20).settings()["modifiers"][0]["k"] == 20
