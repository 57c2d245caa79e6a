"""Matrix products whose result is as wide as what they are summed in."""

from __future__ import annotations

import functools
import platform

import torch

#: torch 2.8 and newer: products of narrow matrices that come out in float32, on CUDA alone.
HAS_OUT_DTYPE = "dtype" in torch.ops.aten.mm.overloads()
#: Rows or columns of a matrix that are widened at once where a product cannot come out wider than its factors.
WIDENED = 4096


def multiplies_bf16(device: torch.device) -> bool:
    """Whether ``device`` has units for bfloat16: every GPU counts as one, and of x86 CPUs those with AMX or with
    AVX-512's instructions for it. Other kinds of CPUs are taken to have them."""
    return device.type != "cpu" or _cpu_multiplies_bf16()


@functools.cache
def _cpu_multiplies_bf16() -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def wide_dtype(like: torch.Tensor) -> torch.dtype:
    """The dtype that sums over ``like`` are kept in: float64 for float64, else float32."""
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def wide_mm(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """left · right, ``[M, K]`` and ``[K, P]`` of one dtype, in :func:`wide_dtype`.

    A product of bfloat16 comes out in bfloat16 otherwise, which costs 2^-9 of its size.
    """
    wide = wide_dtype(left)
    if left.dtype == wide:
        return torch.mm(left, right, out=out)
    if left.device.type == "cuda" and HAS_OUT_DTYPE:
        return torch.mm(left, right, out_dtype=wide, out=out)
    return _widened_mm(left.to(wide), right, out)


def _widened_mm(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """left · right, a stretch of the longer side of ``right`` widened at a time: it may be a whole LM head."""
    if max(right.shape) <= WIDENED:
        return torch.mm(left, right.to(left.dtype), out=out)
    if out is None:
        out = left.new_empty(len(left), right.shape[1])
    if right.shape[1] > right.shape[0]:
        for part, target in zip(right.split(WIDENED, 1), out.split(WIDENED, 1), strict=True):
            target.copy_(left @ part.to(left.dtype))
        return out
    out.zero_()
    for part, factor in zip(right.split(WIDENED), left.split(WIDENED, 1), strict=True):
        out.addmm_(factor, part.to(left.dtype))
    return out
