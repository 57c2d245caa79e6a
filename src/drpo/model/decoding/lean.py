"""A decoding step for the plainest architectures, in as few operations as they need.

A small model's decoding is bound by the number of operations and by the modules around them. The model's own forward
pass makes about 80 a layer and token; here it is half of that and no modules but the products, on the same parameters.
A sampler checks that the logits are the model's.

Shapes: ``R`` rows still generating, ``Q`` query heads, ``K`` key-value heads, ``L`` positions, ``D`` head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import DynamicLayer

from drpo.model.decoding.cache import PreallocatedLayer, spread_rows

#: RMS norms, rotary positions, a gated SiLU; Qwen3 normalizes queries and keys as well.
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
#: Largest difference of a log-probability from the model's own that is rounding.
ROUNDING = 1e-4


class LeanForward:
    """Logits of the next token from the model's parameters, without its modules.

    Args:
        model: one of :data:`ARCHITECTURES`, whole in this process.
    """

    def __init__(self, model: Any):
        self.model = model
        self.backbone = model.base_model

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        """``[R, V]`` after one more token a row, whose keys and values are appended to ``cache``.

        Args:
            ids: ``[R, 1]``.
            mask: ``[R, 1, 1, L]``, added to the scores; the new position included.
            positions: ``[R, 1]``.
            cache: of the rows' earlier tokens.
        """
        states = functional.embedding(ids.squeeze(1), self.backbone.embed_tokens.weight)
        cos, sin = self.backbone.rotary_emb(states, positions)
        # Rotated halves as one product: sin with the sign of the half that it is for.
        half = sin.shape[-1] // 2
        rotation = cos, torch.cat([-sin[..., :half], sin[..., half:]], -1)
        for layer, filled in zip(self.backbone.layers, cache.layers, strict=True):
            normed = _norm(layer.input_layernorm, states)
            states = states + self._attention(layer.self_attn, normed, mask, rotation, filled)
            normed = _norm(layer.post_attention_layernorm, states)
            gate = functional.silu(layer.mlp.gate_proj(normed), inplace=True).mul_(layer.mlp.up_proj(normed))
            states = states + layer.mlp.down_proj(gate)
        return self.model.lm_head(_norm(self.backbone.norm, states))

    def _attention(
        self,
        module: Any,
        states: torch.Tensor,
        mask: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        filled: PreallocatedLayer,
    ) -> torch.Tensor:
        width, count = module.head_dim, len(states)
        query = module.q_proj(states).view(count, -1, width)
        key = module.k_proj(states).view(count, -1, width)
        value = module.v_proj(states).view(count, -1, 1, width)
        if hasattr(module, "q_norm"):
            query, key = _norm(module.q_norm, query), _norm(module.k_norm, key)
        query, key = _rotate(query, *rotation), _rotate(key, *rotation).unsqueeze(2)
        keys, values = filled.update(key, value)
        # The query heads of a group stand side by side as positions, so that its keys are read once.
        found = functional.scaled_dot_product_attention(
            query.view(count, keys.shape[1], -1, width), keys, values, attn_mask=mask, scale=module.scaling
        )
        return module.o_proj(found.reshape(count, -1))


def _norm(module: Any, states: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(states, states.shape[-1:], module.weight, module.variance_epsilon)


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(states * cos, states.roll(states.shape[-1] // 2, -1), sin)


@torch.no_grad()
def lean_forward(model: Any) -> LeanForward | None:
    """The lean decoding step of ``model``; None where its architecture, device or precision is another, or where the
    logits of a few probing tokens are not the model's own."""
    if type(model).__name__ not in ARCHITECTURES or model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    if torch.is_autocast_enabled("cpu") or model.config._attn_implementation != "sdpa":
        return None
    ids = torch.arange(6).remainder(model.config.vocab_size).view(2, 3)
    cache = model(input_ids=ids[:, :2], use_cache=True).past_key_values
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    # accelerate wraps a model's forward in autocast, which is off again here.
    if any(kept.dtype != torch.float32 for layer in cache.layers for kept in (layer.keys, layer.values)):
        return None
    expected = model(input_ids=ids, use_cache=False).logits[:, -1]
    spread_rows(cache, torch.arange(2), 3)
    lean = LeanForward(model)
    found = lean(ids[:, 2:], torch.zeros(2, 1, 1, 3), torch.full((2, 1), 2), cache)
    difference = (found.log_softmax(-1) - expected.log_softmax(-1)).abs().max()
    return lean if bool(difference <= ROUNDING) else None
