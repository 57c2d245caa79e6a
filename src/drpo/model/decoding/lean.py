"""A decoding step for the plainest architectures, in as few operations as they need.

A small model's decoding is bound by the number of operations and by the modules around them. The model's own forward
pass makes about 80 a layer and token; here it is a third of that. A sampler checks that the logits are the model's.

Shapes: ``R`` rows still generating, ``Q`` query heads, ``K`` key-value heads, ``L`` positions, ``D`` head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import DynamicLayer

from drpo.model.decoding.cache import PreallocatedLayer, spread_rows

#: RMS norms, rotary positions, a gated SiLU; Qwen3 normalizes queries and keys as well.
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
#: Largest difference of a log-probability from the model's own that is rounding.
ROUNDING = 1e-4


#: Most parameters in the layers of a model that copies weights side by side, so that one product stands for
#: several: the copy takes as long as a few tokens of a small model, and more than it saves in a large one.
MOST_COPIED = 1 << 23


def copied_numbers(model: Any) -> int:
    """How many numbers a decoding step of ``model``, one of any architecture, copies of its weights."""
    if type(model).__name__ not in ARCHITECTURES:
        return 0
    layers = model.base_model.layers
    if sum(parameter.numel() for layer in layers for parameter in layer.parameters()) > MOST_COPIED:
        return 0
    joined = (module for layer in layers for group in _joined(layer) for module in group)
    return sum(module.weight.numel() for module in joined if type(module) is torch.nn.Linear)


def _joined(layer: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The modules whose products stand side by side."""
    attention, mlp = layer.self_attn, layer.mlp
    return (attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)


class LeanForward:
    """Logits of the next token from the model's parameters, without its modules.

    Args:
        model: one of :data:`ARCHITECTURES`, whole in this process.
    """

    def __init__(self, model: Any):
        self.model = model
        self.backbone = model.base_model

    def start(self) -> LeanStep:
        """What makes the tokens of one batch: of the weights as they are now."""
        return LeanStep(self.model, self.backbone)


class LeanStep:
    """A decoding step of ``model`` at the weights that it has when this is made."""

    def __init__(self, model: Any, backbone: Any):
        self.model, self.backbone = model, backbone
        joined = copied_numbers(model) > 0
        self.layers = [_Layer(layer, joined) for layer in backbone.layers]

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
        for layer, filled in zip(self.layers, cache.layers, strict=True):
            states = layer(states, mask, rotation, filled)
        norm = self.backbone.norm
        return self.model.lm_head(_normed(states, norm.variance_epsilon).mul_(norm.weight))


class _Layer:
    """One layer: its products side by side where that is worth a copy of their weights."""

    def __init__(self, layer: Any, joined: bool):
        attention = layer.self_attn
        self.width, self.scale = attention.head_dim, attention.scaling
        self.before = layer.input_layernorm.variance_epsilon
        self.between = layer.post_attention_layernorm.variance_epsilon
        heads = attention.q_proj.out_features // self.width, attention.k_proj.out_features // self.width
        self.queries, self.rotated = heads[0], sum(heads)
        norms = [
            module for module in (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)) if module
        ]
        self.head_norm = None
        if norms:
            weights = [n.weight.expand(count, self.width) for n, count in zip(norms, heads, strict=True)]
            self.head_norm = torch.cat(weights), norms[0].variance_epsilon
        attended, gated = _joined(layer)
        self.attended = _products(attended, layer.input_layernorm.weight, joined)
        self.gated = _products(gated, layer.post_attention_layernorm.weight, joined)
        self.output, self.down = attention.o_proj, layer.mlp.down_proj

    def __call__(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        filled: PreallocatedLayer,
    ) -> torch.Tensor:
        count = len(states)
        heads = self.attended(_normed(states, self.before)).view(count, -1, self.width)
        rotated = heads[:, : self.rotated]
        if self.head_norm is not None:
            rotated = _normed(rotated, self.head_norm[1]).mul_(self.head_norm[0])
        rotated = _rotate(rotated, *rotation)
        keys, values = filled.update(rotated[:, self.queries :].unsqueeze(2), heads[:, self.rotated :].unsqueeze(2))
        # The query heads of a group stand side by side as positions, so that its keys are read once.
        query = rotated[:, : self.queries].reshape(count, keys.shape[1], -1, self.width)
        found = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=self.scale)
        states = _plus_product(states, found.reshape(count, -1), self.output)
        gate, up = self.gated(_normed(states, self.between)).chunk(2, -1)
        return _plus_product(states, functional.silu(gate).mul_(up), self.down)


def _products(modules: Sequence[Any], scale: torch.Tensor, joined: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """``[R, …]``: what linear ``modules`` make of ``scale`` · states, side by side; by one product where ``joined``."""
    if not joined or any(type(module) is not torch.nn.Linear for module in modules):

        def one_by_one(states: torch.Tensor) -> torch.Tensor:
            scaled = states * scale
            return torch.cat([module(scaled) for module in modules], -1)

        return one_by_one
    weight = (torch.cat([module.weight for module in modules]) * scale).T.contiguous()
    if modules[0].bias is None:
        return lambda states: torch.mm(states, weight)
    bias = torch.cat([module.bias for module in modules])
    return lambda states: torch.addmm(bias, states, weight)


def _plus_product(states: torch.Tensor, inner: torch.Tensor, module: Any) -> torch.Tensor:
    if type(module) is torch.nn.Linear and module.bias is None:
        return torch.addmm(states, inner, module.weight.T)
    return states + module(inner)


def _normed(states: torch.Tensor, epsilon: float) -> torch.Tensor:
    """``states`` over their root mean square, in half of the operations of ``functional.rms_norm``."""
    size = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    return states * size.square_().mul_(1 / states.shape[-1]).add_(epsilon).rsqrt_()


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
    found = lean.start()(ids[:, 2:], torch.zeros(2, 1, 1, 3), torch.full((2, 1), 2), cache)
    difference = (found.log_softmax(-1) - expected.log_softmax(-1)).abs().max()
    return lean if bool(difference <= ROUNDING) else None
