"""Gradient checkpointing: layers keep their inputs alone, and run a second time on the way back."""

from __future__ import annotations

from typing import Any

import torch

from drpo.errors import ConfigError

#: Largest difference of a hidden state between the two ways, as a share of the largest hidden state.
ROUNDING = 1e-5


def checkpoint_activations(model: Any) -> None:
    """Turn on the model's own checkpointing, wherever a gradient will be asked for and nowhere else.

    transformers checkpoints layers in training mode only, and takes their KV cache away from them. So the layers are in
    that mode for the length of a forward pass with gradient: what they hold (dropout) stays in evaluation mode, and
    sampling keeps its cache.

    Args:
        model: a causal LM of transformers.

    Raises:
        ConfigError: the architecture has no checkpointing, or computes something else in training mode.
    """
    # Renamed in later releases of transformers.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            f"gradient_checkpointing: {type(model).__name__} does not support it ({error}). Leave it "
            "out, and lower micro_batch_tokens instead."
        ) from error
    model.disable_input_require_grads()  # the hook that only reentrant checkpoints need
    layers = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]

    def set_mode(training: bool) -> None:
        for layer in layers:
            layer.training = training

    set_mode(False)
    backbone = model.base_model
    before = _probe(backbone)
    backbone.register_forward_pre_hook(lambda *_: set_mode(torch.is_grad_enabled()))
    backbone.register_forward_hook(lambda *_: set_mode(False), always_call=True)
    after = _probe(backbone)
    if float((after - before).abs().max()) > ROUNDING * float(before.abs().max()):
        raise ConfigError(
            f"gradient_checkpointing: {type(model).__name__} computes other hidden states in training "
            "mode (dropout in its layers?), so that π is not what was sampled from. Leave it out."
        )


def _probe(backbone: Any) -> torch.Tensor:
    """Hidden states of a few tokens, on the way that training goes."""
    ids = torch.arange(4, device=backbone.device).remainder(backbone.get_input_embeddings().num_embeddings)
    with torch.enable_grad():
        return backbone(input_ids=ids.unsqueeze(0), use_cache=False).last_hidden_state.detach().float()
