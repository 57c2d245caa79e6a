"""Whether the Triton kernels can run; Triton itself is imported when they do."""

from __future__ import annotations

import functools
import importlib.util

import torch


@functools.cache
def installed() -> bool:
    """Whether Triton can be imported. CUDA builds of torch bring it; CPU builds do not."""
    return importlib.util.find_spec("triton") is not None


def obstacle(device: torch.device) -> str | None:
    """Why the Triton kernels cannot run on tensors of ``device``, and what to do about it; None if they can."""
    if not installed():
        return "the triton backend needs Triton, which is not installed: pip install triton (Linux)"
    if device.type == "cuda" or _interpreted():
        return None
    return (
        f"the triton backend needs a CUDA device or TRITON_INTERPRET=1, and the tensors are on {device.type}. Use "
        "'chunked' or move them; the variable, set before Triton is imported, runs the kernels slowly anywhere"
    )


def compiles_for(device: torch.device) -> bool:
    """Whether the kernels run on ``device`` as machine code, for tensor cores that know bfloat16."""
    return (
        device.type == "cuda"
        and installed()
        and not _interpreted()
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _interpreted() -> bool:
    from drpo.kernels import triton_kernels

    return triton_kernels.interpreted()
