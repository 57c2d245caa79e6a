"""The same numbers every time: operations whose sums have a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """While this is entered, torch takes the deterministic variant of every operation that has one.

    On a CPU that decides the order in which threads add gradients of an indexed tensor, in the modules of transformers
    too (experts, recurrent states). An operation without such a variant, which there are on CUDA alone, warns and
    runs. The state is global to the process: what it was before is restored.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=warn_only if enabled else True)
    memory.fill_uninitialized_memory = False  # finds bugs, at a cost; changes no sum
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fills
