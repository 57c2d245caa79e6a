"""What the CPU that runs the tests can do."""

from __future__ import annotations

import torch


def has_avx512() -> bool:
    """Whether torch computes with AVX-512 here: bfloat16 products are then summed in another order and width."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")
