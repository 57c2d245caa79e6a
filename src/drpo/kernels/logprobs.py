"""`token_logprobs`: one call, several backends that agree.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from drpo.errors import ConfigError, DataError, suggest

#: Rows of logits that the chunked backend holds at once.
CHUNK_ROWS = 256
#: `auto` takes the chunked backend when the logits would be larger than this many numbers (64 MB of float32).
AUTO_LIMIT = 1 << 24


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float = 1.0,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """log softmax(hidden · weightᵀ / temperature) at the targets, and the entropy of that distribution.

    Args:
        hidden: ``[N, H]`` float, the states that predict the targets.
        weight: ``[V, H]`` float, the LM head.
        targets: ``[N]`` int64 in [0, V).
        temperature: > 0, the one the tokens were sampled at.
        backend: ``reference`` (plain PyTorch, holds ``[N, V]``), ``chunked`` (any device; holds 256 rows of
            logits, its backward recomputes them), or ``auto``.

    Returns:
        ``(logprobs, entropy)``, both ``[N]`` in nats, float32 at least whatever the inputs' dtype. ``logprobs``
        is differentiable in ``hidden`` and ``weight``; ``entropy`` is a constant.

    Raises:
        ConfigError: unknown backend, temperature not positive. DataError: shapes or dtypes disagree.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}.{suggest(backend, [*BACKENDS, 'auto'])}")
    check_inputs(hidden, weight, targets, temperature)
    if backend == "auto":
        backend = "chunked" if hidden.shape[0] * weight.shape[0] > AUTO_LIMIT else "reference"
    return BACKENDS[backend](hidden, weight, targets, temperature)


def check_inputs(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float | torch.Tensor
) -> None:
    """Shapes, dtypes and a scalar temperature, without waiting for the device.

    Raises:
        ConfigError: temperature not positive. DataError: shapes or dtypes disagree.
    """
    if isinstance(temperature, torch.Tensor):
        if temperature.shape != hidden.shape[:1]:
            raise DataError(f"a temperature for each token must be [N] = [{hidden.shape[0]}], got "
                            f"{list(temperature.shape)}")
    elif not 0 < temperature < math.inf:
        raise ConfigError(f"temperature must be finite and > 0, got {temperature}")
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise DataError(f"hidden must be [N, H] and weight [V, H], got {list(hidden.shape)} and {list(weight.shape)}")
    if hidden.dtype != weight.dtype or not hidden.dtype.is_floating_point:
        raise DataError(f"hidden and weight must have one floating-point dtype, got {hidden.dtype} and {weight.dtype}; "
                        "convert one with .to()")
    if targets.shape != hidden.shape[:1] or targets.dtype != torch.int64:
        raise DataError(f"targets must be int64 [N] = [{hidden.shape[0]}], got {targets.dtype} {list(targets.shape)}")


def _logits(hidden: torch.Tensor, weight: torch.Tensor, temperature: float) -> torch.Tensor:
    logits = hidden @ weight.T
    return (logits if logits.dtype == torch.float64 else logits.float()) / temperature


def _entropy(log_probabilities: torch.Tensor) -> torch.Tensor:
    """−Σ p log p with 0 log 0 = 0."""
    probabilities = log_probabilities.exp()
    return -torch.where(probabilities > 0, probabilities * log_probabilities, 0.0).sum(-1)


def _reference(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    log_probabilities = _logits(hidden, weight, temperature).log_softmax(-1)
    entropy = _entropy(log_probabilities.detach())
    return log_probabilities.gather(1, targets.unsqueeze(1)).squeeze(1), entropy


class _Chunked(torch.autograd.Function):
    """Row chunks forward and backward; nothing of size ``[N, V]`` ever exists."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float):
        logprobs, entropy = [], []
        for start in range(0, len(hidden), CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            part = _reference(hidden[chunk], weight, targets[chunk], temperature)
            logprobs.append(part[0])
            entropy.append(part[1])
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature = temperature
        empty = hidden.new_zeros(0, dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        out = torch.cat(logprobs) if logprobs else empty
        out_entropy = torch.cat(entropy) if entropy else empty.clone()
        ctx.mark_non_differentiable(out_entropy)
        return out, out_entropy

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor):
        hidden, weight, targets = ctx.saved_tensors
        grad = gradients[0]
        grad_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        # Sums over chunks are kept wide, so that the chunk size does not show in bfloat16.
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        grad_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            slope = _logits(hidden[chunk], weight, ctx.temperature).softmax(-1)
            slope.mul_(-grad[chunk].unsqueeze(1))
            slope.scatter_add_(1, targets[chunk].unsqueeze(1), grad[chunk].unsqueeze(1))
            slope.div_(ctx.temperature)
            narrow = slope.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[chunk] = narrow @ weight
            if grad_weight is not None:
                grad_weight += narrow.T @ hidden[chunk]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None


def _chunked(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return _Chunked.apply(hidden, weight, targets, temperature)  # pyright: ignore[reportReturnType]


#: Backend name → function of (hidden, weight, targets, temperature).
BACKENDS = {"reference": _reference, "chunked": _chunked}
