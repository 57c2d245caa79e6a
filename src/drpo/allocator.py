"""What the C library does with memory that torch frees. Loads no torch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

#: Options of glibc's mallopt(3), number and value: memory at the top of the heap that goes back to the system, and the
#: size from which a block is a mapping of its own, which goes back whenever it is freed.
KEPT = {"M_TRIM_THRESHOLD": (-1, (1 << 31) - 1), "M_MMAP_THRESHOLD": (-3, 1 << 30)}
#: Where the user chose.
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let glibc keep what is freed for what is allocated next, unless the user chose; whether it does.

    A training step frees and allocates the same activations again and again. By itself glibc gives every larger block
    back to the system, which has to clear its pages anew each time. Other allocators and systems are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name in environment for name in CHOSEN):
        return False
    done = [mallopt(number, value) for number, value in KEPT.values()]
    return all(answer == 1 for answer in done)
