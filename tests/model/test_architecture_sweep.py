"""Sampler and trainer against plain passes on many architectures of transformers; tools/measure/architectures.py
runs the start check on all of them."""

from __future__ import annotations

import pytest
import torch

from drpo.model.forward import Sequences
from drpo.model.policy import Policy
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from support import architectures, tiny

pytestmark = pytest.mark.slow

NAMES = """
    afmoe apertus arcee axk1 bamba bart beam bert biogpt bitnet bloom codegen cohere cohere2 ctrl deepseek_v2
    deepseek_v3 diffllama doge dots1 ernie4_5 exaone4 falcon falcon_h1 flex_olmo gemma gemma2 gemma3_text
    gemma3n_text glm glm4_moe gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite granitemoe granitemoehybrid
    helium hunyuan_v1_dense jamba jetmoe lfm2 llama llama4_text mamba mamba2 minicpm3 minimax mistral mixtral mpt
    nemotron olmo2 olmo3 olmoe opt persimmon phi phi3 qwen2_moe qwen3 qwen3_5_text qwen3_moe qwen3_next
    recurrent_gemma roberta rwkv smollm3 stablelm starcoder2 xglm zamba2
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_log_probabilities_are_those_of_plain_passes(name: str) -> None:
    policy = Policy(architectures.network(name), tiny.tokenizer())
    requests = [Request(list(range(3, 3 + length)), 2, seed=length) for length in (2, 13, 6)]
    groups = InProcessSampler(policy.model, {0}).sample(requests, SamplingParameters(max_new_tokens=6))
    sequences = [Sequences(r.prompt_ids, out.token_ids) for r, g in zip(requests, groups, strict=True) for out in g]
    behavior = torch.tensor([value for group in groups for out in group for value in out.behavior_logprobs])
    with torch.no_grad():
        found, _ = policy.response_logprobs(sequences, 1.0)
        parts = []
        for sequence in sequences:
            ids = torch.tensor([[*sequence.prompt_ids, *sequence.token_ids]])
            whole = policy.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            logprobs = whole[len(sequence.prompt_ids) - 1 : -1]
            parts.append(logprobs.gather(1, torch.tensor(sequence.token_ids).unsqueeze(1)).squeeze(1))
    right = torch.cat(parts)
    assert right.std() > 0.05  # or else any pass would do
    assert float((found - right).abs().max()) <= 1e-5
    assert float((behavior - right).abs().max()) <= 1e-5
