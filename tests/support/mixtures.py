"""Mixtures of experts small enough to make in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

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
    "pad_token_id": 0,
    "num_experts_per_tok": 2,
    "num_experts": 8,
    "moe_intermediate_size": 16,
}
LOCAL = {"num_local_experts": 8}
#: A layer of every kind; the last is the only one with attention.
HYBRID = {
    "shared_expert_intermediate_size": 16,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "layer_types": ["linear_attention", "full_attention"],
}
LATENT = {
    "n_routed_experts": 8,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 2,
}
#: By the name of their configuration.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Qwen3MoeConfig": {"norm_topk_prob": True},
    "MixtralConfig": LOCAL,
    "OlmoeConfig": {},
    "Qwen3_5MoeTextConfig": HYBRID,
    "DeepseekV3Config": LATENT,
}


def model(name: str = "Qwen3MoeConfig", seed: int = 0, **changes: Any) -> Any:
    """A random causal LM whose distributions and routers are not nearly uniform."""
    torch.manual_seed(seed)
    settings = SMALL | ARCHITECTURES.get(name, {}) | changes
    if "num_local_experts" in settings:
        del settings["num_experts"]
    made = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).eval()
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.05 if "embed" not in key else 1.0).mul_(3)
    return made


def save(directory: Path) -> Path:
    """A Hugging Face directory with a random mixture and the tokenizer of :mod:`tiny`."""
    letters = tiny.tokenizer()
    model(vocab_size=len(letters)).save_pretrained(directory)
    letters.save_pretrained(directory)
    return directory
