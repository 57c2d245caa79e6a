"""Recording what routers choose, and making them choose it again, on real architectures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from drpo.errors import ConfigError
from drpo.model.routers import Routers
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from support import mixtures, tiny

IDS = torch.tensor([[5, 6, 7, 8, 9], [4, 3, 2, 7, 0]])
#: Those whose router is a softmax.
SOFTMAX = [*mixtures.ARCHITECTURES][:4]


def blocks(model: Any) -> list[Any]:
    """Layers of experts, by their attribute names in transformers."""
    return [module for module in model.modules() if hasattr(module, "gate") and hasattr(module, "experts")]


def weights_by_hand(gate: Any, states: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """``[N, K]``: the softmax over all experts, at ``experts``, normalized where the router is told to."""
    logits = states @ gate.weight.T
    found = (logits.exp() / logits.exp().sum(1, keepdim=True)).gather(1, experts)
    return found / found.sum(1, keepdim=True) if getattr(gate, "norm_topk_prob", True) else found


def block_by_hand(block: Any, states: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """``[N, H]``: every token through its ``experts`` ``[N, K]``, one by one."""
    weights, rows = weights_by_hand(block.gate, states, experts), []
    for state, weight, chosen in zip(states, weights, experts, strict=True):
        out = torch.zeros_like(state)
        for share, index in zip(weight, chosen.tolist(), strict=True):
            gate, up = (block.experts.gate_up_proj[index] @ state).chunk(2)
            out = out + share * (block.experts.down_proj[index] @ (gate * gate.sigmoid() * up))
        if hasattr(block, "shared_expert"):
            out = out + block.shared_expert_gate(state).sigmoid() * block.shared_expert(state)
        rows.append(out)
    return torch.stack(rows)


def states_before(model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """What enters each layer of experts, ``[N, H]``."""
    seen: list[torch.Tensor] = []
    hooks = [b.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, 1))) for b in blocks(model)]
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


def chosen_by_hand(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """``[N, M, K]``, in ascending order."""
    layers = zip(blocks(model), states_before(model, ids), strict=True)
    logits = [states @ block.gate.weight.T for block, states in layers]
    return torch.stack([table.topk(2, dim=1).indices.sort(1).values for table in logits], 1)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("name", SOFTMAX)
def test_what_is_recorded_are_the_largest_router_logits(name: str) -> None:
    model = mixtures.model(name)
    with torch.no_grad(), Routers(model).recording() as recording:
        model(input_ids=IDS, use_cache=False)
    found = recording.take()
    assert found.shape == (10, 2, 2) and found.dtype == torch.uint8
    assert torch.equal(found.long().sort(-1).values, chosen_by_hand(model, IDS))
    assert len(found.unique()) >= 6


@pytest.mark.parametrize("name", mixtures.ARCHITECTURES)
def test_replaying_its_own_choice_changes_no_bit(name: str) -> None:
    model = mixtures.model(name)
    routers = Routers(model)
    with routers.recording() as recording:
        logits = model(input_ids=IDS, use_cache=False).logits
    logits.square().sum().backward()
    right = gradients(model)
    with routers.replaying(recording.take()):
        again = model(input_ids=IDS, use_cache=False).logits
    again.square().sum().backward()
    ours = gradients(model)
    assert torch.equal(logits, again) and ours.keys() == right.keys()
    routed = [key for key in ours if key.endswith(".gate.weight")]
    assert len(routed) == routers.count and all(bool(ours[key].any()) for key in routed)
    for key in ours:
        # Two experts' gradients come to a token's score in another order.
        assert torch.allclose(ours[key], right[key], rtol=1e-5, atol=1e-6 * float(right[key].abs().max())), key


@pytest.mark.parametrize("name", SOFTMAX)
def test_other_experts_are_weighed_by_the_router_and_it_learns(name: str) -> None:
    model = mixtures.model(name)
    routers = Routers(model)
    generator = torch.Generator().manual_seed(1)
    experts = torch.stack([torch.randperm(8, generator=generator)[:2] for _ in range(20)]).view(10, 2, 2)
    for index, block in enumerate(blocks(model)):
        states = torch.randn(2, 5, 32, generator=generator)
        direction = torch.randn(10, 32, generator=generator)
        with routers.replaying(experts):
            ours = block(states).view(10, 32)
        (ours * direction).sum().backward()
        found = gradients(model)
        right = block_by_hand(block, states.view(10, 32), experts[:, index])
        (right * direction).sum().backward()
        assert torch.allclose(ours, right, atol=1e-5)
        assert not torch.allclose(ours, block(states).view(10, 32), atol=1e-2)
        expected = gradients(model)
        assert found.keys() == expected.keys() and any(key.endswith(".gate.weight") for key in found)
        for key, value in expected.items():
            assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-5 * float(value.abs().max())), key


def test_minus_one_is_the_routers_own_choice() -> None:
    model = mixtures.model()
    routers = Routers(model)
    with torch.no_grad(), routers.recording() as recording:
        model(input_ids=IDS, use_cache=False)
        own = recording.take().long()
        given = own.clone()
        given[[1, 8]] = torch.tensor([[7, 3], [0, 5]])
        holed = given.clone()
        holed[0], holed[2:8, 0], holed[9] = -1, -1, -1
        with routers.replaying(given):
            right = model(input_ids=IDS, use_cache=False).logits
        with routers.replaying(holed):
            ours = model(input_ids=IDS, use_cache=False).logits
        chosen = recording.take().long()
    assert torch.equal(chosen[:, 0], given[:, 0]) and torch.equal(chosen[[1, 8]], given[[1, 8]])
    assert torch.equal(ours[:, :3], right[:, :3]) and not torch.equal(right, model(input_ids=IDS).logits)


def test_groups_of_experts_are_left_to_the_router() -> None:
    """DeepSeek-V3 takes the top of its groups, then of their experts; a group it did not choose can be replayed."""
    model = mixtures.model("DeepseekV3Config")
    routers = Routers(model)
    assert routers.problem is None and routers.count == 1
    (block,) = blocks(model)
    states = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    experts = torch.tensor([[[0, 7]], [[2, 5]], [[6, 4]]])
    with torch.no_grad(), routers.replaying(experts):
        _, weights, chosen = block.gate(states)
    scores = (states[0] @ block.gate.weight.T).sigmoid().gather(1, experts[:, 0])
    assert torch.equal(chosen, experts[:, 0])
    assert torch.allclose(weights, scores / scores.sum(1, keepdim=True) * block.gate.routed_scaling_factor)


def test_nothing_stays_behind() -> None:
    model = mixtures.model()
    routers = Routers(model)

    class Broken(Exception):
        pass

    with pytest.raises(Broken), routers.recording(), routers.replaying(torch.zeros(10, 2, 2)):
        raise Broken
    for module in routers.modules:
        assert "forward" not in vars(module) and not module._forward_hooks


def test_what_cannot_be_replayed_says_why() -> None:
    assert Routers(tiny.model()).problem == "Qwen3ForCausalLM is dense: it has no routers"
    phi = mixtures.model("PhimoeConfig", num_local_experts=8)
    assert "PhimoeTopKRouter of PhimoeForCausalLM does not choose by one topk" in (Routers(phi).problem or "")
    llama = mixtures.model("Llama4TextConfig", num_local_experts=8, intermediate_size_mlp=64)
    assert "does not return (logits, weights, experts)" in (Routers(llama).problem or "")
    hidden = mixtures.model()
    for block in blocks(hidden):
        block.gate.__class__ = type("Gate", (type(block.gate),), {})
    assert "cannot be recorded" in (Routers(hidden).problem or "")
    uneven = mixtures.model()
    blocks(uneven)[0].gate.top_k = 1
    assert "differ in experts or experts a token" in (Routers(uneven).problem or "")


REQUESTS = [Request([3 + (i + j) % 15 for j in range(1 + 3 * i)], 3, seed=i) for i in range(4)]


@pytest.mark.parametrize("name", SOFTMAX)
def test_a_response_holds_the_experts_of_every_position_that_a_layer_saw(name: str) -> None:
    model = mixtures.model(name)
    sampler = InProcessSampler(model, {0, 5, 6}, max_rows=7)
    parameters = SamplingParameters(max_new_tokens=8, report_experts=True, report_topk=2, temperature=1.5)
    groups = sampler.sample(REQUESTS, parameters)
    plain = sampler.sample(REQUESTS, SamplingParameters(max_new_tokens=8, report_topk=2, temperature=1.5))
    assert groups == plain and all(out.experts is None for group in plain for out in group)
    assert len({len(out.token_ids) for group in groups for out in group}) >= 4
    for request, group in zip(REQUESTS, groups, strict=True):
        for out in group:
            ids = [*request.prompt_ids, *out.token_ids[:-1]]
            assert out.experts is not None and out.experts.shape == (len(ids), 2, 2)
            assert torch.equal(out.experts.long().sort(-1).values, chosen_by_hand(model, torch.tensor([ids])))


def test_many_experts_need_two_bytes() -> None:
    model = mixtures.model(num_experts=300, moe_intermediate_size=4)
    ((out,),) = InProcessSampler(model, {0}).sample(
        [Request([5, 6, 7], 1, seed=0)], SamplingParameters(max_new_tokens=4, report_experts=True)
    )
    assert out.experts is not None and out.experts.dtype == torch.int16 and int(out.experts.max()) > 256


def test_experts_are_refused_where_there_are_none_to_see() -> None:
    asked = SamplingParameters(max_new_tokens=2, report_experts=True)
    for model, compiled, why in ((tiny.model(), False, "is dense"), (mixtures.model(), True, "compiled")):
        sampler = InProcessSampler(model, {0}, compiled=compiled)
        assert not sampler.reports_experts
        with pytest.raises(ConfigError, match=f"report_experts is not possible: .*{why}"):
            sampler.sample(REQUESTS, asked)
