"""Sampler and trainer agree on any causal LM: rotary, learned and ALiBi positions, soft caps, experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import tiny
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from drpo.train.policy import Policy, Sequences

SMALL: dict[str, Any] = {
    "vocab_size": 20, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": 0,
    "pad_token_id": 0,
}  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Qwen2Config": {},
    "MistralConfig": {"sliding_window": 8},
    "Gemma2Config": {"final_logit_softcapping": 2.0, "sliding_window": 8},
    "GraniteConfig": {"logits_scaling": 3.0},
    "Phi3Config": {},
    "Qwen3MoeConfig": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "GPT2Config": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "OPTConfig": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "GPTNeoXConfig": {},
    "BloomConfig": {"n_layer": 2, "n_head": 2},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sampler_and_trainer_agree(name: str) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, name)(**(SMALL | ARCHITECTURES[name]))
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    policy = Policy(network, tiny.tokenizer())
    requests = [Request([3 + (i + j) % 15 for j in range(2 + 3 * i)], 4, seed=i) for i in range(4)]
    groups = InProcessSampler(network, {0, 5}).sample(requests, SamplingParameters(max_new_tokens=20))
    sequences = [Sequences(r.prompt_ids, out.token_ids) for r, g in zip(requests, groups, strict=True) for out in g]
    with torch.no_grad():
        logprobs, _ = policy.response_logprobs(sequences, 1.0)
    behavior = torch.tensor([value for group in groups for out in group for value in out.behavior_logprobs])
    assert behavior.std() > 0.1
    assert (logprobs - behavior).abs().max() <= 1e-4
