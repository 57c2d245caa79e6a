"""Sampler and trainer agree on any causal LM: rotary, learned and ALiBi positions, soft caps, experts."""

from __future__ import annotations

from types import MethodType
from typing import Any

import pytest
import torch
import transformers

from drpo.model.forward import PACKED, PADDED, SHARED, Sequences, response_states
from drpo.model.policy import Policy
from drpo.model.probe import probes, reference
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from support import tiny

SMALL: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,  # or else padding would be embedded as zeros, and could leak unseen
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Qwen2Config": {},
    "MistralConfig": {"sliding_window": 8},
    "Gemma2Config": {"final_logit_softcapping": 2.0, "sliding_window": 8},
    "GraniteConfig": {"logits_scaling": 3.0},
    "Phi3Config": {},
    "Qwen3MoeConfig": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "Qwen3_5MoeTextConfig": {
        "num_hidden_layers": 4,
        "full_attention_interval": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
    "GPT2Config": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "OPTConfig": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "GPTNeoXConfig": {},
    "BloomConfig": {"n_layer": 2, "n_head": 2},
}


#: These do not go on from a prompt's keys and values in training: for their layers, or because their logits are no
#: plain product of the states that ``base_model`` gives.
APART = {"MistralConfig", "Qwen3_5MoeTextConfig", "Gemma2Config", "GraniteConfig", "OPTConfig"}
SHARING = {*ARCHITECTURES} - APART


def network(name: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, name)(**(SMALL | ARCHITECTURES[name]))
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return made


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sampler_and_trainer_agree(name: str) -> None:
    policy = Policy(network(name), tiny.tokenizer())
    requests = [Request([3 + (i + j) % 15 for j in range(2 + 3 * i)], 4, seed=i) for i in range(4)]
    groups = InProcessSampler(policy.model, {0, 5}).sample(requests, SamplingParameters(max_new_tokens=20))
    sequences = [Sequences(r.prompt_ids, out.token_ids) for r, g in zip(requests, groups, strict=True) for out in g]
    with torch.no_grad():
        logprobs, _ = policy.response_logprobs(sequences, 1.0)
    behavior = torch.tensor([value for group in groups for out in group for value in out.behavior_logprobs])
    assert behavior.std() > 0.1
    assert (logprobs - behavior).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_shared_prompt_changes_no_state_and_no_gradient(name: str) -> None:
    experts = "Moe" in name  # whose products know no float64
    policy = Policy(network(name) if experts else network(name).double(), tiny.tokenizer())
    assert (policy.way in (PACKED, SHARED)) == (name in SHARING)
    sequences = [
        Sequences([5, 6, 7, 8, 9], [8, 9]),
        Sequences([4], [3]),
        Sequences([5, 6, 7, 8, 9], [8, 2, 2, 11, 0]),
        Sequences([4], [3, 2, 7, 0]),
        Sequences([10, 11, 12], [13]),
    ]
    answers = []
    for way in (policy.way, SHARED if policy.way == PACKED else PADDED, PADDED):
        policy.model.zero_grad()
        states = response_states(policy.model.base_model, sequences, way)
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        answers.append([states.detach(), *(p.grad.clone() for p in policy.model.parameters() if p.grad is not None)])
    assert answers[0][0].shape == (13, 32) and len(answers[0]) > 10
    *ways, padded = answers
    largest = max(float(right.abs().max()) for right in padded)
    for found in ways:
        for ours, right in zip(found, padded, strict=True):
            # Most of these models normalize in float32.
            assert float((ours - right).abs().max()) <= (1e-5 if experts else 1e-6) * largest


LEAN = {"LlamaConfig": {}, "Qwen2Config": {}, "Qwen3Config": {"num_attention_heads": 4, "num_key_value_heads": 2}}


@pytest.mark.parametrize("name", LEAN)
def test_the_lean_step_draws_what_the_model_would(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SMALL | LEAN[name]
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    asked = [Request([3 + (i + j) % 15 for j in range(2 + 3 * i)], 4, seed=i) for i in range(4)]
    lean = InProcessSampler(made, {0, 5})
    assert lean._forward.lean is not None
    ours = lean.sample(asked, SamplingParameters(max_new_tokens=20))
    with torch.no_grad():
        made.model.layers[1].mlp.up_proj.weight.mul_(1.5)  # an update of the weights is seen
    after = lean.sample(asked, SamplingParameters(max_new_tokens=20))
    monkeypatch.setattr(lean._forward, "lean", None)
    right_after = lean.sample(asked, SamplingParameters(max_new_tokens=20))
    with torch.no_grad():
        made.model.layers[1].mlp.up_proj.weight.div_(1.5)
    for found, right in ((ours, lean.sample(asked, SamplingParameters(max_new_tokens=20))), (after, right_after)):
        for mine, theirs in zip([o for g in found for o in g], [o for g in right for o in g], strict=True):
            assert mine.token_ids == theirs.token_ids
            difference = torch.tensor(mine.behavior_logprobs) - torch.tensor(theirs.behavior_logprobs)
            assert float(difference.abs().max()) <= 1e-4
    assert ours[0][0].behavior_logprobs != after[0][0].behavior_logprobs


def test_a_model_that_computes_something_else_is_not_decoded_leanly() -> None:
    made = network("LlamaConfig")
    forward = made.model.layers[0].mlp.forward
    made.model.layers[0].mlp.forward = lambda states: 1.01 * forward(states)
    assert InProcessSampler(made, {0})._forward.lean is None
    assert InProcessSampler(network("LlamaConfig").bfloat16(), {0})._forward.lean is None
    assert InProcessSampler(network("MistralConfig"), {0})._forward.lean is None


def test_a_forward_in_autocast_is_sampled_from() -> None:
    """As accelerate prepares a model: the autocast is inside its forward, and shows nowhere else."""
    model = network("Qwen3MoeConfig")
    model.forward = MethodType(torch.autocast("cpu", dtype=torch.bfloat16)(type(model).forward), model)
    found = [reference(model, probe) for probe in probes(model)]
    assert not any(one.exact for one in found) and reference(network("Qwen3MoeConfig"), found[0].probe).exact
    request = Request([3, 4, 5], 4, seed=0)
    ((*responses,),) = InProcessSampler(model, {0, 5}).sample([request], SamplingParameters(max_new_tokens=5))
    assert len(responses) == 4
