"""The embedded bases, by name."""

from __future__ import annotations

from tools.warm_start.arithmetic import Arithmetic
from tools.warm_start.spec import WarmStart
from tools.warm_start.words import Words

EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.01}

BASES: dict[str, WarmStart] = {
    "arithmetic": Arithmetic(),
    "dense": Words(shape={"intermediate_size": 384}, steps=1300),
    "moe": Words(
        architecture="Qwen3MoeConfig",
        shape={**EXPERTS, "moe_intermediate_size": 128, "norm_topk_prob": True},
        start="dense",
        takes=("embed_tokens", "self_attn", "norm"),
        steps=400,
    ),
    "hybrid": Words(
        architecture="Qwen3_5MoeTextConfig",
        shape={
            **EXPERTS,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
        },
        start="dense",
        takes=("embed_tokens",),
        steps=1000,
    ),
    "reasoner": Words(
        worked=True,
        task_parameters={"min_steps": 3, "max_steps": 5},
        shape={"intermediate_size": 384},
        start="dense",
        takes=("",),
        steps=800,
        batch=16,
        max_new_tokens=200,
    ),
}
