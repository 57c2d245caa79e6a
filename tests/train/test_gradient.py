"""The trainer's gradient against plain autograd over whole logits, on a real model, for every objective."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import drpo
from drpo.model.forward import SHARED, Prompts
from drpo.model.policy import Policy
from drpo.objectives import OBJECTIVES
from drpo.rollouts import Response
from drpo.tasks.base import Example
from drpo.tasks.grading.grader import Grade
from drpo.train import settings
from drpo.train.config_layers import load_config
from drpo.train.gradient import accumulate_gradient, loss_path
from drpo.train.rollout import Sample
from support import tiny

pytestmark = pytest.mark.slow

PROMPTS = [[5, 6, 7, 8, 9], [4], [10, 11, 12]]
RESPONSES = {0: [[8, 9], [8, 2, 2, 11, 0], [3]], 1: [[3, 2, 7, 0], [14]], 2: [[13, 5]]}
#: One sequence of a group and all of another have no advantage.
ADVANTAGES = [0.7, 0.0, -0.7, 1.1, -1.1, 0.0]
TEMPERATURE = 0.8


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(tiny.model(sharpness=4.0).double(), tiny.tokenizer())


def samples(policy: Policy, topk: int) -> list[Sample]:
    """μ and π_old a little off π."""
    made = []
    for index, prompt in enumerate(PROMPTS):
        for response in RESPONSES[index]:
            table = distributions(policy, prompt, response).detach()
            own = table[torch.arange(len(response)), response]
            wobble = 0.3 * torch.sin(torch.arange(len(response)) + len(made)).double()
            top = table.topk(min(topk, 16), dim=1) if topk else None
            made.append(
                Sample(
                    Example("", "", {}),
                    prompt,
                    Response(
                        response,
                        (own + wobble).clamp(max=-1e-3).tolist(),
                        "stop",
                        top and top.indices.tolist(),
                        top and (top.values - 0.05).tolist(),
                    ),
                    "",
                    Grade(1.0, None),
                    (own + 0.3 * wobble).clamp(max=-1e-3).tolist(),
                )
            )
    return made


def distributions(policy: Policy, prompt: list[int], response: list[int]) -> torch.Tensor:
    """log π of all tokens where the response's were drawn, from a plain forward pass."""
    logits = policy.model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return (logits / TEMPERATURE).log_softmax(-1)


def expected(policy: Policy, objective: drpo.Objective, given: list[Sample], reduction: dict[str, Any]) -> Any:
    tables = [distributions(policy, list(s.prompt_ids), s.response.token_ids) for s in given]
    table, tokens = torch.cat(tables), torch.tensor([t for s in given for t in s.response.token_ids])
    lengths = torch.tensor([len(s.response.token_ids) for s in given])

    def flat(lists: list[Any]) -> torch.Tensor:
        return torch.tensor([value for values in lists for value in values])

    fields: dict[str, Any] = {
        "behavior_logprobs": flat([s.response.behavior_logprobs for s in given]),
        "advantages": torch.tensor(ADVANTAGES).repeat_interleave(lengths),
        "sequence_ids": torch.arange(len(given)).repeat_interleave(lengths),
        "proximal_logprobs": flat([s.proximal_logprobs for s in given]),
        "entropy": -(table.detach().exp() * table.detach()).sum(1),
    }
    if objective.topk:
        ids = flat([s.response.topk_ids for s in given])
        fields["topk_logprobs"] = table.gather(1, ids)
        fields["topk_is_sampled"] = ids == tokens.unsqueeze(1)
        fields["topk_behavior_logprobs"] = flat([s.response.topk_logprobs for s in given])
    batch = drpo.TokenBatch(table.gather(1, tokens.unsqueeze(1)).squeeze(1), **fields)
    loss = drpo.aggregate(objective(batch).loss, batch, **reduction)
    loss.backward()
    return loss.item(), gradients(policy)


def gradients(policy: Policy) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])
    policy.model.zero_grad(set_to_none=True)
    return found


#: With a penalty that knows no advantage.
UNWEIGHTED = "{name: drpo, advantage_weighted: false}"


@pytest.mark.parametrize("name", [*OBJECTIVES, UNWEIGHTED])
@pytest.mark.parametrize("budget", [10_000, 16, 12])  # 16: the prompts fit, the responses do not; 12: neither
def test_every_objective(policy: Policy, name: str, budget: int) -> None:
    config, _ = load_config(
        None, [f"objective={name}", f"micro_batch_tokens={budget}", f"temperature={TEMPERATURE}", "max_new_tokens=9"]
    )
    objective = config.make_objective()
    given = samples(policy, objective.topk)
    loss, batch, order = accumulate_gradient(
        policy,
        objective,
        given,
        ADVANTAGES,
        settings.reduction(config),
        settings.forward_settings(config, policy.device),
    )
    ours = gradients(policy)
    reduction = {"mode": "sequence_sum", "denominator": float(len(given)), "horizon": 9}
    right_loss, right = expected(policy, objective, given, reduction)
    assert sorted(order) == list(range(len(given))) and len(batch) == sum(len(s.response.token_ids) for s in given)
    # The model normalizes in float32.
    assert loss == pytest.approx(right_loss, rel=1e-5, abs=1e-7)
    assert float((ours - right).abs().max()) <= 2e-5 * float(right.abs().max())


@pytest.mark.parametrize(("budget", "passes"), [(10_000, 1), (16, 1), (12, 0)])
def test_the_prompts_pass_once(policy: Policy, monkeypatch: pytest.MonkeyPatch, budget: int, passes: int) -> None:
    """As many positions as one forward pass may have: fifteen for the three prompts. Packed, they need no pass."""
    monkeypatch.setattr(policy, "way", SHARED)
    done = []
    backward = Prompts.backward
    monkeypatch.setattr(Prompts, "backward", lambda self: done.append(len(self.index)) or backward(self))
    config, _ = load_config(None, [f"micro_batch_tokens={budget}"])
    accumulate_gradient(
        policy,
        config.make_objective(),
        samples(policy, 0),
        ADVANTAGES,
        settings.reduction(config),
        settings.forward_settings(config, policy.device),
    )
    policy.model.zero_grad(set_to_none=True)
    assert done == [3] * passes and policy._prompts is None


def test_what_has_no_advantage_is_measured_without_a_backward_pass(policy: Policy) -> None:
    given, differentiated = samples(policy, 0), []
    config, _ = load_config(None, [])
    states = policy.response_states

    def spy(sequences: list[Any]) -> torch.Tensor:
        differentiated.append((len(sequences), torch.is_grad_enabled()))
        return states(sequences)

    for advantages, expected in (
        (ADVANTAGES, [(4, True), (2, False)]),
        ([0.0] * 6, [(6, True)]),
        ([1.0] * 6, [(6, True)]),
    ):
        differentiated.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(policy, "response_states", spy)
            _, batch, order = accumulate_gradient(
                policy,
                drpo.make_objective("drpo"),
                given,
                advantages,
                settings.reduction(config),
                settings.forward_settings(config, policy.device),
            )
        assert differentiated == expected and sorted(order) == [0, 1, 2, 3, 4, 5]
        assert not batch.logprobs.requires_grad and all(p.grad is not None for p in policy.model.parameters())
        policy.model.zero_grad(set_to_none=True)


def test_which_way_the_loss_comes(policy: Policy) -> None:
    def path(*overrides: str) -> str:
        config, _ = load_config(None, overrides)
        return loss_path(policy, config.make_objective(), settings.forward_settings(config, policy.device))

    assert path() == path("objective=gspo") == "fused_loss"
    assert path("objective=dppo_topk_tv") == "whole logits"
    entropy = [{"name": "entropy_top"}]
    assert path("objective=drpo", f"objective.modifiers={entropy}") == "token_logprobs (reference)"
    assert path("objective=drpo", f"objective.modifiers={entropy}", "micro_batch_tokens=1000000") == (
        "token_logprobs (chunked)"
    )
