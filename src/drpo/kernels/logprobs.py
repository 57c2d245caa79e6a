"""`token_logprobs`: one call, several backends that agree.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import torch

from drpo.errors import ConfigError, DataError, suggest
from drpo.kernels import triton_support
from drpo.kernels.chunks import Chunks
from drpo.kernels.products import wide_dtype

#: `auto` takes the chunked backend when the logits would be larger than this many numbers (64 MB of float32).
AUTO_LIMIT = 1 << 24


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | torch.Tensor = 1.0,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """log softmax(hidden · weightᵀ / temperature) at the targets, and the entropy of that distribution.

    Args:
        hidden: ``[N, H]`` float, the states that predict the targets.
        weight: ``[V, H]`` float, the LM head.
        targets: ``[N]`` int64 in [0, V).
        temperature: > 0, the one the tokens were sampled at; or ``[N]``, one a token.
        backend: ``reference`` (plain PyTorch, holds ``[N, V]``), ``chunked`` (any device; holds 256 rows of
            logits, its backward recomputes them), ``triton`` (CUDA; no logits outside the chip on the way forward), or
            ``auto``: what :func:`drpo.kernels.choose_backend` says, logged at its first use.

    Returns:
        ``(logprobs, entropy)``, both ``[N]`` in nats, float32 at least whatever the inputs' dtype. ``logprobs``
        is differentiable in ``hidden`` and ``weight``; ``entropy`` is a constant.

    Raises:
        ConfigError: an unknown backend or one that cannot run here, or a temperature that is not positive.
        DataError: shapes or dtypes disagree.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}.{suggest(backend, [*BACKENDS, 'auto'])}")
    check_inputs(hidden, weight, targets, temperature)
    if backend == "auto":
        backend = choose_backend(hidden, weight)
        _announce(backend)
    return BACKENDS[backend](hidden, weight, targets, temperature)


def choose_backend(hidden: torch.Tensor, weight: torch.Tensor) -> str:
    """The backend that ``auto`` takes for ``hidden`` ``[N, H]`` and ``weight`` ``[V, H]``.

    ``reference`` while the logits are small (64 MB); beyond that ``triton`` for bfloat16 and float16 on a CUDA device
    that Triton compiles for, and ``chunked`` for the rest.
    """
    if hidden.shape[0] * weight.shape[0] <= AUTO_LIMIT:
        return "reference"
    # Float32 in full precision has no tensor cores, and the matrix library does without them better.
    narrow = hidden.dtype in (torch.bfloat16, torch.float16)
    return "triton" if narrow and triton_support.compiles_for(hidden.device) else "chunked"


@functools.cache
def _announce(backend: str) -> None:
    """Once a process for each choice."""
    logging.getLogger("drpo.kernels").info("token_logprobs: auto takes the %s backend", backend)


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


def _reference(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = wide_dtype(hidden)
    scale = temperature.unsqueeze(1).to(wide) if isinstance(temperature, torch.Tensor) else temperature
    log_probabilities = (hidden.to(wide) @ weight.to(wide).T / scale).log_softmax(-1)
    # 0 · log 0 = 0, by keeping the logarithm finite.
    fixed = log_probabilities.detach().clamp(min=-1e30)
    entropy = -(fixed.exp() * fixed).sum(-1)
    return log_probabilities.gather(1, targets.unsqueeze(1)).squeeze(1), entropy


class _Chunked(torch.autograd.Function):
    """One product forward, three backward; nothing of size ``[N, V]`` ever exists."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float | torch.Tensor
    ):
        work = Chunks(hidden, weight, targets, temperature, (False, False))
        work.measure(with_entropy=True)
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(work.entropy)
        return work.logprobs, work.entropy

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor):
        if torch.is_grad_enabled():  # create_graph=True: a part of the second derivative would be missing
            raise RuntimeError("the chunked backend of token_logprobs has no second derivative; use 'reference'")
        hidden, weight, targets = ctx.saved_tensors
        work = Chunks(hidden, weight, targets, ctx.temperature, ctx.needs_input_grad[:2])
        work.differentiate(lambda rows, _: upstream[0][rows])
        return *work.gradients(), None, None


def _chunked(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return _Chunked.apply(hidden, weight, targets, temperature)  # pyright: ignore[reportReturnType]


def _triton(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if (problem := triton_support.obstacle(hidden.device)) is not None:
        raise ConfigError(f"{problem}.")
    from drpo.kernels import triton_backend

    return triton_backend.token_logprobs(hidden, weight, targets, temperature)


#: Backend name → function of (hidden, weight, targets, temperature).
BACKENDS: dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {
    "reference": _reference, "chunked": _chunked, "triton": _triton,
}  # fmt: skip
