"""`token_logprobs`: one call, several backends that agree.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

from drpo.checks import is_positive, is_readable, shorten
from drpo.errors import ConfigError, DataError, suggest
from drpo.kernels import triton_support
from drpo.kernels.chunks import Chunks
from drpo.kernels.products import wide_dtype
from drpo.support import Support

#: `auto` takes the chunked backend when the logits would be larger than this many numbers (64 MB of float32).
AUTO_LIMIT = 1 << 24


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | torch.Tensor = 1.0,
    backend: str = "auto",
    support: Support | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """log softmax(hidden · weightᵀ / temperature) at the targets, and the entropy of that distribution.

    With a support, both are of that distribution renormalized over it: log π_S(a) = z_a − log Σ_{v ∈ S} exp z_v.

    Args:
        hidden: ``[N, H]`` float, the states that predict the targets.
        weight: ``[V, H]`` float, the LM head.
        targets: ``[N]`` int64 in [0, V): no −100 for ignored positions, which are left out instead. Checked on a CPU;
            on an accelerator, where that would wait for the device, another value is a device-side assertion.
        temperature: > 0, the one the tokens were sampled at; or ``[N]``, one a token.
        backend: ``reference`` (plain PyTorch, holds ``[N, V]``), ``chunked`` (any device; holds 256 rows of
            logits, its backward recomputes them), ``triton`` (CUDA; no logits outside the chip on the way forward), or
            ``auto``: what :func:`drpo.kernels.choose_backend` says, logged at its first use.
        support: the tokens that each target was sampled from, where top-p, top-k or min-p kept a part of the
            vocabulary. Logits outside have no gradient. Checked as ``targets`` are.

    Returns:
        ``(logprobs, entropy)``, both ``[N]`` in nats, float32 at least whatever the inputs' dtype. ``logprobs``
        is differentiable in ``hidden`` and ``weight``; ``entropy`` is a constant.

    Raises:
        ConfigError: an unknown backend or one that cannot run here, or a temperature that is not positive.
        DataError: shapes or dtypes disagree, an input is no tensor, or a target is outside [0, V) or its support.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ConfigError(f"unknown backend {shorten(repr(backend))}.{suggest(backend, [*BACKENDS, 'auto'])}")
    check_inputs(hidden, weight, targets, temperature, support)
    if backend == "auto":
        backend = choose_backend(hidden, weight)
        _announce(backend)
    return BACKENDS[backend](hidden, weight, targets, temperature, support)


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
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | torch.Tensor,
    support: Support | None,
) -> None:
    """Shapes, dtypes, devices and a scalar temperature, and on a CPU targets and support; without waiting for a device.

    Args:
        hidden: as in :func:`token_logprobs`, like the others.
        weight: likewise.
        targets: likewise.
        temperature: likewise.
        support: likewise.

    Raises:
        ConfigError: temperature not positive. DataError: shapes, dtypes or devices disagree, an input is no tensor, or
            a target is outside [0, V) or its support.
    """
    for name, value in (("hidden", hidden), ("weight", weight), ("targets", targets)):
        if not isinstance(value, torch.Tensor):
            fix = f"; pass its weight: lm_head.{name}" if hasattr(value, "weight") else ""
            raise DataError(f"{name} must be a tensor, got {type(value).__name__}{fix}")
    _check_temperature(temperature, hidden)
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        packed = "; of [B, T, H] keep the response tokens: hidden[mask] and targets[mask], with a bool mask [B, T]"
        raise DataError(
            f"hidden must be [N, H] and weight [V, H], got {list(hidden.shape)} and {list(weight.shape)}"
            + packed * (hidden.dim() == 3)
        )
    if hidden.dtype != weight.dtype or not hidden.dtype.is_floating_point:
        raise DataError(
            f"hidden and weight must have one floating-point dtype, got {hidden.dtype} and {weight.dtype}; "
            "convert one with .to()"
        )
    if targets.shape != hidden.shape[:1] or targets.dtype != torch.int64:
        raise DataError(f"targets must be int64 [N] = [{hidden.shape[0]}], got {targets.dtype} {list(targets.shape)}")
    if not hidden.device == weight.device == targets.device:
        raise DataError(
            f"hidden, weight and targets are on {hidden.device}, {weight.device} and {targets.device}; "
            "move them to one device with .to()"
        )
    if is_readable(targets):
        _check_targets(targets, len(weight))
    if support is not None:
        support.check(targets, len(weight))


def _check_temperature(temperature: float | torch.Tensor, hidden: torch.Tensor) -> None:
    """Refuse what is neither a positive number nor one for each token."""
    if not isinstance(temperature, torch.Tensor):
        if not is_positive(temperature):
            raise ConfigError(f"temperature must be finite and > 0, got {shorten(repr(temperature))}")
    elif temperature.dim() == 0:
        raise ConfigError(
            "temperature must be a number, or a tensor [N] with one for each token; got a 0-d tensor, "
            "pass temperature.item()"
        )
    elif hidden.dim() == 2 and temperature.shape != hidden.shape[:1]:
        raise DataError(
            f"a temperature for each token must be [N] = [{hidden.shape[0]}], got {list(temperature.shape)}"
        )


def _check_targets(targets: torch.Tensor, vocabulary: int) -> None:
    """Refuse a target that is no row of the LM head."""
    outside = (targets < 0) | (targets >= vocabulary)
    if not bool(outside.any()):
        return
    where = outside.nonzero().flatten()
    first = int(where[0])
    raise DataError(
        f"targets must be in [0, V) with V = {vocabulary}: {len(where)} of {len(targets)} are not, the "
        f"first at index {first} with {int(targets[first])}. Leave out the positions that are no response "
        "token (−100, padding): keep = targets >= 0, then hidden[keep], targets[keep], and so on for every "
        "[N] tensor. An id ≥ V belongs to another tokenizer or LM head."
    )


def _reference(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | torch.Tensor,
    support: Support | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = wide_dtype(hidden)
    scale = temperature.unsqueeze(1).to(wide) if isinstance(temperature, torch.Tensor) else temperature
    x = hidden.to(wide) @ weight.to(wide).T / scale
    if support is not None:
        x = x.masked_fill(~support.mask(len(weight)), -torch.inf)
    log_probabilities = x.log_softmax(-1)
    # 0 · log 0 = 0, by keeping the logarithm finite.
    fixed = log_probabilities.detach().clamp(min=-1e30)
    entropy = -(fixed.exp() * fixed).sum(-1)
    return log_probabilities.gather(1, targets.unsqueeze(1)).squeeze(1), entropy


class _Chunked(torch.autograd.Function):
    """One product forward, three backward; nothing of size ``[N, V]`` ever exists."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        temperature: float | torch.Tensor,
        support: Support | None,
    ):
        work = Chunks(hidden, weight, targets, temperature, support, (False, False))
        work.measure(with_entropy=True)
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature, ctx.support = temperature, support
        ctx.mark_non_differentiable(work.entropy)
        return work.logprobs, work.entropy

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor):
        if torch.is_grad_enabled():  # create_graph=True: a part of the second derivative would be missing
            raise RuntimeError("the chunked backend of token_logprobs has no second derivative; use 'reference'")
        hidden, weight, targets = ctx.saved_tensors
        work = Chunks(hidden, weight, targets, ctx.temperature, ctx.support, ctx.needs_input_grad[:2])
        work.differentiate(lambda rows, _: upstream[0][rows])
        return *work.gradients(), None, None, None


def _chunked(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | torch.Tensor,
    support: Support | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    return _Chunked.apply(hidden, weight, targets, temperature, support)  # pyright: ignore[reportReturnType]


def _triton(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | torch.Tensor,
    support: Support | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    if (problem := triton_support.obstacle(hidden.device)) is not None:
        raise ConfigError(f"{problem}.")
    from drpo.kernels import triton_backend

    return triton_backend.token_logprobs(hidden, weight, targets, temperature, support)


#: Backend name → function of (hidden, weight, targets, temperature, support).
BACKENDS: dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {
    "reference": _reference,
    "chunked": _chunked,
    "triton": _triton,
}
