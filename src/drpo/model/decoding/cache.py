"""A KV cache that is written in place.

Shapes: ``P`` prompts, ``R`` rows still generating, ``K`` key-value heads, ``L`` positions, ``D`` head width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """One layer's keys and values ``[R, K, L, D]``, views of a buffer that has room for all positions to come.

    The layer of transformers that it stands for joins old and new at every token: a copy of everything, into memory
    that is new each time.

    Args:
        layer: the filled layer, one row a prompt.
        rows: ``[R]`` int64, the prompt of each row.
        room: positions in all.
    """

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, room: int):
        super().__init__()
        assert layer.keys is not None and layer.values is not None
        self.dtype, self.device, self.is_initialized = layer.keys.dtype, layer.keys.device, True
        self._key_room, self.keys = _spread(layer.keys, rows, room)
        self._value_room, self.values = _spread(layer.values, rows, room)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append ``[R, K, 1, D]`` (or more positions); keys and values of all positions so far."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        self._key_room[:, :, start:end] = key_states
        self._value_room[:, :, start:end] = value_states
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        return self.keys, self.values

    def move_rows(self, sources: torch.Tensor, holes: torch.Tensor, count: int) -> None:
        """Copy the rows ``sources`` over the rows ``holes``, and keep the first ``count``."""
        for room, states in ((self._key_room, self.keys), (self._value_room, self.values)):
            assert states is not None
            room[holes, :, : states.shape[2]] = states[sources]
        filled = self.get_seq_length()
        self._key_room, self._value_room = self._key_room[:count], self._value_room[:count]
        self.keys, self.values = self._key_room[:, :, :filled], self._value_room[:, :, :filled]


def _spread(states: torch.Tensor, rows: torch.Tensor, room: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``states`` ``[P, K, L, D]``, one row for each of ``rows``, in a buffer of ``room`` positions; buffer and view."""
    _, heads, filled, width = states.shape
    buffer = states.new_empty(len(rows), heads, room, width)
    view = buffer[:, :, :filled]
    view.copy_(states[rows])
    return buffer, view


def spread_rows(cache: Any, rows: torch.Tensor, room: int) -> None:
    """Give every one of ``rows`` ``[R]`` (a prompt each) its copy of the prefilled ``cache``, with ``room`` positions.

    Layers that do not simply grow (sliding windows, recurrent states) stay what they are.
    """
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[index] = PreallocatedLayer(layer, rows, room)
        else:
            layer.reorder_cache(rows)  # pyright: ignore[reportArgumentType]


def keep_rows(cache: Any, done: torch.Tensor, left: int) -> torch.Tensor:
    """Drop the rows of ``cache`` that are ``done`` ``[R]`` (bool), ``left`` of which stay.

    The last rows that stay fill the gaps of those that go, so that no other row is copied.

    Returns:
        ``[left]`` int64: which row of the old order stands in each place of the new.
    """
    holes = done[:left].nonzero().squeeze(1)
    sources = left + (~done[left:]).nonzero().squeeze(1)
    order = torch.arange(left, device=done.device)
    order[holes] = sources
    for layer in cache.layers:
        if isinstance(layer, PreallocatedLayer):
            layer.move_rows(sources, holes, left)
        else:
            layer.reorder_cache(order)  # pyright: ignore[reportArgumentType]
    return order
