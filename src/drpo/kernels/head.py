"""Which models' logits are the product of hidden states and a matrix, and no more.

Shapes: ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def plain_head(model: Any) -> torch.Tensor | None:
    """The LM head of a causal LM of transformers, if its logits are hidden · weightᵀ: no bias, scale or soft cap.

    Asks the model itself, by a forward pass over two tokens, so that it holds for architectures nobody listed here.
    An adapted, quantized or sharded head is not plain.

    Args:
        model: with ``base_model`` and ``get_output_embeddings()``, whole in this process.

    Returns:
        ``[V, H]``, the parameter, for :func:`drpo.token_logprobs` and :func:`drpo.fused_loss` over the hidden states
        that ``model.base_model(…)`` returns; None if there is no such matrix.
    """
    head = model.get_output_embeddings()
    if not (type(head) is torch.nn.Linear or getattr(head, "multiplies_alone", False)) or head.bias is not None:
        return None
    seen: dict[str, Any] = {}
    hooks = [
        model.base_model.register_forward_hook(lambda _module, _inputs, output: seen.update(backbone=output)),
        # A copy of what leaves: a scale may be applied in place.
        head.register_forward_hook(lambda _module, inputs, output: seen.update(entered=inputs[0], left=output.clone())),
    ]
    try:
        probe = torch.arange(2, device=head.weight.device).unsqueeze(0)
        logits = model(input_ids=probe, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    states = getattr(seen.get("backbone"), "last_hidden_state", None)
    if states is None or "left" not in seen:
        return None
    # Bit for bit: near zero a soft cap changes little more than the last one.
    untouched = torch.equal(seen["entered"].to(states.dtype), states) and torch.equal(
        seen["left"].to(logits.dtype), logits
    )
    return head.weight if untouched else None
