"""Weights in memory that two processes see.

The memory has no name: nothing is left behind however the processes end, and no disk or mount limits its size.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

#: Every tensor starts at a multiple of this many bytes.
ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies: ``start`` in bytes, its shape and type."""

    name: str
    start: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return self.shape.numel() * self.dtype.itemsize


class SharedWeights:
    """The writing side.

    Another process reads with :func:`read_weights`, given ``descriptor`` (inherited) and ``entries``. It must not read
    while :meth:`write` runs.
    """

    def __init__(self) -> None:
        self._memory = os.fdopen(os.memfd_create("drpo-weights"), "r+b", buffering=0)
        self.entries: list[Entry] = []

    @property
    def descriptor(self) -> int:
        """Of the memory, to be inherited."""
        return self._memory.fileno()

    def write(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace everything by ``weights``; tied ones, which are the same memory under several names, lie there
        once."""
        end = 0
        first: dict[Any, Entry] = {}
        self.entries = []
        for name, tensor in weights.items():
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
            if place in first:
                self.entries.append(replace(first[place], name=name))
                continue
            first[place] = Entry(name, end, tensor.shape, tensor.dtype)
            self.entries.append(first[place])
            end += -(-first[place].size // ALIGNMENT) * ALIGNMENT
        os.ftruncate(self.descriptor, end)
        for entry, view in _views(self.descriptor, list(first.values())):
            view.copy_(weights[entry.name].detach())

    def close(self) -> None:
        """Give the memory back once the other process has ended too."""
        self._memory.close()


def read_weights(descriptor: int, entries: list[Entry]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor, each a copy: what keeps one is not changed by the next write."""
    for entry, view in _views(descriptor, entries):
        yield entry.name, view.clone()


def _views(descriptor: int, entries: list[Entry]) -> Iterator[tuple[Entry, torch.Tensor]]:
    size = os.fstat(descriptor).st_size
    if not size:
        return
    memory = torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)
    for entry in entries:
        yield entry, memory[entry.start : entry.start + entry.size].view(entry.dtype).view(entry.shape)
