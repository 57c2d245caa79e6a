"""What the Triton kernels are launched for. Imported only where Triton is installed.

No tile of logits leaves the chip on the way forward: each program goes over a stretch of the vocabulary and writes four
numbers a row, from which log Z, log π and the entropy follow. On the way back a kernel makes a bounded stretch of
∂loss/∂logits from the saved log Z, in the dtype of the inputs, and the matrix library multiplies it with both sides.
Every sum has one order and no atomics: the same inputs give the same bits.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary, ``S`` stretches of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from drpo.kernels import triton_kernels as kernels
from drpo.kernels.products import wide_dtype, wide_mm
from drpo.support import Support

#: Numbers of ∂loss/∂logits that the backward pass holds at once (512 MiB of bfloat16).
WORKSPACE = 1 << 28
#: Blocks of the vocabulary that one program of the forward pass goes over.
STRETCH = 16
#: Row blocks that run side by side, so that they share what they read of the weight in the L2 cache.
GROUP = 8


class Blocks(NamedTuple):
    """How a product is cut: rows × columns of logits a tile, width of H a step."""

    rows: int
    columns: int
    width: int
    warps: int
    stages: int


#: Float32 accumulators of a tile are 128 registers a thread at 128 × 256; the stages take 144 KiB of shared memory.
HOPPER = Blocks(rows=128, columns=256, width=64, warps=8, stages=3)
#: Fits the registers and the 99 KiB of the cards before it and of the smaller ones after it.
SMALLER = Blocks(rows=128, columns=128, width=32, warps=8, stages=4)
#: Float32 and float64 in full precision do not use the tensor cores.
EXACT = Blocks(rows=64, columns=64, width=16, warps=4, stages=2)
#: What the interpreter is quick with and small tests go beyond.
INTERPRETED = Blocks(rows=64, columns=32, width=16, warps=1, stages=1)
#: Numbers of a row that the row pass takes at once.
ROW_BLOCK = 8192


def blocks_for(hidden: torch.Tensor) -> Blocks:
    """How the product of ``hidden`` with the weight is cut on its device."""
    if kernels.interpreted():
        return INTERPRETED
    if hidden.dtype not in (torch.bfloat16, torch.float16):
        return EXACT
    return HOPPER if torch.cuda.get_device_capability(hidden.device)[0] >= 9 else SMALLER


def exponentials(
    x: torch.Tensor, scale: float | torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """exp(x / scale − max) in ``dtype``, the maximum of each row of x / scale, and its sum.

    Args:
        x: ``[C, V]``, contiguous; float32 or float64.
        scale: > 0, or ``[C, 1]``.
        dtype: of the exponentials; where it is that of ``x`` they take its place.

    Returns:
        ``[C, V]``, ``[C, 1]``, ``[C, 1]``.
    """
    scales = scale_of(scale.squeeze(1) if isinstance(scale, torch.Tensor) else scale, x)
    out = x if dtype == x.dtype else torch.empty_like(x, dtype=dtype)
    tops, totals = x.new_empty(2, len(x), 1)
    block = min(ROW_BLOCK, triton.next_power_of_2(x.shape[1]))
    _launch(
        kernels.exponentials,
        len(x),
        x,
        scales,
        out,
        tops,
        totals,
        x.shape[1],
        x.stride(0),
        scales.stride(0),
        out.stride(0),
        BLOCK=block,
        WIDE=_types(x)["WIDE"],
        num_warps=16,
    )
    return out, tops, totals


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | torch.Tensor,
    support: Support | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`drpo.token_logprobs`; the inputs are checked, and Triton runs on their device.

    Args:
        hidden: as there, like the others.
        weight: likewise.
        targets: likewise.
        temperature: likewise.
        support: likewise.
    """
    bits = None if support is None else support.bitmask(len(weight))
    return _TokenLogprobs.apply(hidden, weight, targets, temperature, bits)  # pyright: ignore[reportReturnType]


class _TokenLogprobs(torch.autograd.Function):
    """Forward in one kernel; backward in one kernel and two products for each stretch of the vocabulary."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        temperature: float | torch.Tensor,
        bits: torch.Tensor | None,
    ):
        # An index outside the vocabulary is an error here as it is in the other backends, without waiting for it.
        hidden.new_empty(1).expand(len(weight)).gather(0, targets)
        scales = scale_of(temperature, hidden)
        logprobs, entropy, normalizers = _forward(hidden, weight, targets.contiguous(), scales, bits)
        ctx.save_for_backward(hidden, weight, targets.contiguous(), scales, bits, normalizers)
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor):
        if torch.is_grad_enabled():  # create_graph=True: the kernel's part would come out as a constant
            raise RuntimeError("the triton backend of token_logprobs has no second derivative; use 'reference'")
        hidden, weight, targets, scales, bits, normalizers = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden, dtype=wide_dtype(hidden)) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for columns, slopes in _slopes_of(hidden, weight, targets, scales, bits, normalizers, upstream[0].contiguous()):
            if grad_hidden is not None:
                grad_hidden += wide_mm(slopes, weight[columns])
            if grad_weight is not None:
                grad_weight[columns] = wide_mm(slopes.T, hidden).to(weight.dtype)
        return None if grad_hidden is None else grad_hidden.to(hidden.dtype), grad_weight, None, None, None


def scale_of(temperature: float | torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """``[N]`` in the dtype that sums are kept in; one number for all of them has stride 0."""
    if isinstance(temperature, torch.Tensor):
        return temperature.to(hidden.device, wide_dtype(hidden))
    return hidden.new_full((1,), temperature, dtype=wide_dtype(hidden)).expand(len(hidden))


def _types(like: torch.Tensor) -> dict[str, Any]:
    """The kernels' dtypes: of the sums, and of the factors of the product."""
    wide = tl.float64 if like.dtype == torch.float64 else tl.float32
    narrow = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
    # NumPy, and with it the interpreter, has no bfloat16 to multiply; in float32 the product is the same.
    return {"WIDE": wide, "FACTOR": wide if kernels.interpreted() else narrow.get(like.dtype, wide)}


def _options(hidden: torch.Tensor, blocks: Blocks) -> dict[str, Any]:
    return {
        "BLOCK_N": blocks.rows,
        "BLOCK_V": blocks.columns,
        "BLOCK_H": blocks.width,
        "GROUP": GROUP,
        **_types(hidden),
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }


def _ceiling(count: int, block: int) -> int:
    """Blocks that ``count`` takes."""
    return -(-count // block)


def _launch(kernel: Any, programs: int, first: torch.Tensor, *arguments: Any, **options: Any) -> None:
    """On the device of the first tensor, which need not be the current one."""
    with torch.cuda.device_of(first):
        kernel[(programs,)](first, *arguments, **options)


def _strides(hidden: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> tuple[int, ...]:
    return *hidden.stride(), *weight.stride(), scales.stride(0)


def _restriction(bits: torch.Tensor | None, targets: torch.Tensor) -> tuple[torch.Tensor, int, bool]:
    """What the kernels get of the support's bits ``[N, W]``: a tensor (any, where there are none), the words of a row,
    and whether they look."""
    return (targets, 0, False) if bits is None else (bits, bits.stride(0), True)


def _forward(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    scales: torch.Tensor,
    bits: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log π, entropy and log Z, ``[N]`` each."""
    blocks = blocks_for(hidden)
    count, vocabulary = len(hidden), len(weight)
    stretches = _ceiling(vocabulary, STRETCH * blocks.columns)
    parts = hidden.new_empty(4, count, stretches, dtype=wide_dtype(hidden))
    support, words, restricted = _restriction(bits, targets)
    if count:
        _launch(
            kernels.measure,
            _ceiling(count, blocks.rows) * stretches,
            hidden,
            weight,
            targets,
            scales,
            support,
            *parts,
            count,
            vocabulary,
            hidden.shape[1],
            *_strides(hidden, weight, scales),
            words,
            STRETCH=STRETCH,
            RESTRICTED=restricted,
            **_options(hidden, blocks),
        )
    tops, totals, moments, chosen = parts
    top = tops.amax(1, keepdim=True)
    fall = tops - top
    share = fall.exp()
    total = (share * totals).sum(1)
    moment = (share * (moments + totals * fall)).sum(1)
    log_total = total.log()
    normalizers = top.squeeze(1) + log_total
    return chosen.amax(1) - normalizers, (log_total - moment / total).clamp_(min=0.0), normalizers


def _slopes_of(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    scales: torch.Tensor,
    bits: torch.Tensor | None,
    normalizers: torch.Tensor,
    upstream: torch.Tensor,
):
    """Stretches of the vocabulary, each with ∂loss/∂(hidden · weightᵀ) ``[N, columns]``; the next one overwrites it."""
    blocks = blocks_for(hidden)
    count, vocabulary = len(hidden), len(weight)
    if not count:
        return
    step = max(1, WORKSPACE // count // blocks.columns) * blocks.columns
    buffer = hidden.new_empty(count, min(step, vocabulary))
    support, words, restricted = _restriction(bits, targets)
    for first in range(0, vocabulary, step):
        last = min(first + step, vocabulary)
        _launch(
            kernels.slopes,
            _ceiling(count, blocks.rows) * _ceiling(last - first, blocks.columns),
            hidden,
            weight,
            targets,
            scales,
            support,
            normalizers,
            upstream,
            buffer,
            count,
            first,
            last,
            hidden.shape[1],
            *_strides(hidden, weight, scales),
            words,
            buffer.stride(0),
            RESTRICTED=restricted,
            **_options(hidden, blocks),
        )
        yield slice(first, last), buffer[:, : last - first]
