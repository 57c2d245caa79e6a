"""Every causal LM of transformers, tiny and random, by its model type."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

#: Parameters beyond which a model is not tiny.
MOST = 4_000_000

#: Settings that any configuration with such a key gets.
SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": None,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "hidden_dim": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_ffn_dim": 64,
    "n_positions": 64,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "decoder_layers": 2,
    "encoder_layers": 1,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "is_decoder": True,
    "sliding_window": 8,
    "window_size": 8,
    "rotary_dim": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "moe_layer_freq": 1,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "index_topk": 64,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "state_size": 8,
    "expand": 2,
    "n_groups": 1,
    "chunk_size": 8,
    "lru_width": 32,
    "attention_hidden_size": 32,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 32,
}
MLA = {"num_key_value_heads": 4}
PADDED = {"pad_token_id": 2}
UNSCALED = {"logit_scale": 1.0}
LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
#: How many times the matrices of a random model are made larger, so that its distributions are not flat; 2 for others.
SHARPNESS = {"youtu": 1.0, "deepseek_v2": 1.0, "deepseek_v3": 1.0, "bart": 6.0}
#: Model type → settings of its own.
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "youtu", "glm_moe_dsa"), MLA
    ),
    **dict.fromkeys(
        (
            "camembert",
            "data2vec-text",
            "roberta",
            "roberta-prelayernorm",
            "xlm-roberta",
            "xlm-roberta-xl",
            "modernbert-decoder",
        ),
        PADDED,
    ),
    **dict.fromkeys(("cohere", "cohere2", "cohere2_moe"), UNSCALED),
    "xmod": PADDED | {"default_language": "en_XX"},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "zaya": {"num_experts_per_tok": 1},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "mamba_dt_rank": 4,
        "n_mamba_heads": 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"],
        "mamba_headdim": 16,
        "n_mamba_heads": 4,
        "mamba_ngroups": 1,
        "adapter_rank": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "minicpm3": MLA | {"dim_model_base": 32, "scale_emb": 1},
    "kimi_linear": MLA | LINEAR,
    "longcat_flash": {
        "ffn_hidden_size": 32,
        "expert_ffn_hidden_size": 32,
        "zero_expert_num": 1,
        "moe_topk": 2,
        "num_key_value_heads": 4,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 32,
        "shape_vocab_size": 32,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "gemma3n_text": {
        "num_kv_shared_layers": 1,
        "num_hidden_layers": 3,
        "altup_num_inputs": 2,
        "laurel_rank": 4,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "head_dim": 8,
        "activation_sparsity_pattern": [0.0, 0.0, 0.0],
        "intermediate_size": [64, 64, 64],
    },
    "xlm": {"emb_dim": 32, "n_words": 32, "vocab_size": 32},
    "reformer": {
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [8, 8],
        "attention_head_size": 8,
        "attn_layers": ["local", "local"],
        "feed_forward_size": 64,
    },
    "dots3_note_text": MLA,
    **dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "qwen4_exp_text"), LINEAR),
    "bailing_hybrid": LINEAR | {"num_experts": 8},
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "rwkv": {"attention_hidden_size": 32},
    "prophetnet": {
        "pad_token_id": 0,
        "num_decoder_layers": 2,
        "num_decoder_attention_heads": 4,
        "num_encoder_layers": 1,
        "num_encoder_attention_heads": 4,
    },
}
#: Variants of an architecture whose positions, windows or layers differ: name → model type and settings.
ROPE: dict[str, dict[str, Any]] = {
    "linear": {"factor": 2.0},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": 32},
    "llama3": {"factor": 2.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "dynamic": {"factor": 2.0},
    "longrope": {
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 4.0, 6.0, 8.0],
        "factor": 2.0,
        "original_max_position_embeddings": 32,
    },
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"llama rope_type={kind}": ("llama", {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}})
        for kind, more in ROPE.items()
    },
    "phi3 longrope": (
        "phi3",
        {
            "original_max_position_embeddings": 32,
            "sliding_window": None,
            "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, **ROPE["longrope"]},
        },
    ),
    "falcon alibi": ("falcon", {"alibi": True}),
    "falcon new_decoder": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "opt post-norm": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "qwen2 sliding": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 8}),
    "gpt_neo local": ("gpt_neo", {"attention_types": [[["local"], 2]]}),
    "bert bidirectional": ("bert", {"is_decoder": False}),
}
NAMES = [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS]


def config(name: str) -> Any:
    """A tiny configuration of the architecture (or variant) ``name``."""
    kind, more = VARIANTS.get(name, (name, {}))
    made = CONFIG_MAPPING[kind]
    known = made().to_dict()
    settings = {key: value for key, value in SMALL.items() if key in known}
    if known.get("sliding_window") is None:
        settings.pop("sliding_window", None)
    return made(**(settings | OWN.get(kind, {}) | more))


def network(name: str) -> Any:
    """A random causal LM of the architecture ``name``; a ValueError says why it is not tiny."""
    transformers.utils.logging.set_verbosity_error()
    made = config(name)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(made).parameters())
    if size > MOST:
        raise ValueError(f"{size:,} parameters, which no general setting makes fewer")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(SHARPNESS.get(name, 2.0))
    return model
