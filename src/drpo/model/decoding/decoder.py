"""One token after another: from the tokens just drawn to the logits of the next, for all rows at once.

Shapes: ``P`` prompts, ``R`` rows still generating, ``L`` positions so far, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StaticCache
from transformers.cache_utils import DynamicLayer, StaticLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from drpo.errors import ConfigError
from drpo.kernels import plain_head
from drpo.kernels.products import wide_mm
from drpo.model.decoding.cache import PreallocatedLayer, keep_rows, spread_rows
from drpo.model.decoding.lean import lean_forward
from drpo.model.precision import Quantized
from drpo.model.probe import without_cache

#: Compiled shapes have room for a multiple of this many positions, so that prompts of other lengths share them.
ROOM = 64
#: Finished rows are dropped once they are this share of the batch.
DROP_SHARE = 1 / 16
#: Logits that one pass over whole sequences makes at most, if it makes them at every position.
MOST_LOGITS = 1 << 26

#: How a token is made, the fastest first: by :mod:`drpo.model.decoding.lean`; by the model with an additive mask;
#: by the model with a mask of booleans; in batches of prompts of one length, without any mask; from whole sequences of
#: one length, without a cache.
WAYS = ("lean", "additive mask", "padded", "equal lengths", "no cache")


class Forward:
    """The model's forward pass as sampling calls it, in the ``way`` that was found to be right."""

    def __init__(self, model: Any):
        self.model = model
        self.way = WAYS[0]
        self.config = model.config.get_text_config()
        # A mixture of experts would work out its balancing loss, with a mask that does not fit one token at a time.
        self.options = {"output_router_logits": False} if getattr(self.config, "output_router_logits", False) else {}
        self.lean = lean_forward(model)
        # Logits of bfloat16 would be off by up to 2^-9 of their size, where the trainer's are float32.
        self.head = plain_head(model) if model.dtype in (torch.bfloat16, torch.float16) else None

    @property
    def pads(self) -> bool:
        """Whether prompts of different length go together."""
        return self.way in ("lean", "additive mask", "padded")

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None, cache: Any) -> Any:
        """The model's output for ``ids`` ``[R, T]`` at ``positions``, logits of the last one alone."""
        given = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if self.head is None:
            return self.model(**given, logits_to_keep=1, **self.options)
        out = self.model.base_model(**given)
        logits = wide_mm(out.last_hidden_state[:, -1], self.head.T)
        return CausalLMOutputWithPast(logits=logits.unsqueeze(1), past_key_values=out.past_key_values)  # pyright: ignore[reportArgumentType]

    def last_logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits ``[R, V]`` after whole sequences ``ids`` ``[R, T]``, without a cache."""
        options = without_cache(self.model)
        if self.head is not None:
            return wide_mm(self.model.base_model(input_ids=ids, **options).last_hidden_state[:, -1], self.head.T)
        rows = max(MOST_LOGITS // (ids.shape[1] * self.config.vocab_size), 1)
        return torch.cat([self.model(input_ids=part, **options).logits[:, -1] for part in ids.split(rows)])

    def takes_additive_masks(self, cache: Any) -> bool:
        """Whether a decoding step may be given the mask ``[R, 1, 1, L]`` that attention adds, which spares the model
        making it anew for every token: where all layers see all positions, and nothing else is made from the mask."""
        return (
            self.way in ("lean", "additive mask")
            and self.config._attn_implementation in ("sdpa", "eager")
            and getattr(self.config, "rope_parameters", None) is not None
            and all(type(layer) in (DynamicLayer, PreallocatedLayer) for layer in cache.layers)
        )


def prefill(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    counts: Sequence[int],
    budget: int,
    compiled: CompiledForward | None = None,
) -> tuple[torch.Tensor, Decoding | CompiledDecoding | Recomputing]:
    """Logits ``[R, V]`` after each of ``prompts``, ``counts`` rows of each, and what makes the next ones.

    Prompts of different length are padded on the left; a ``forward`` that does not pad is given prompts of one length.
    """
    device, width = forward.model.device, max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.ones(len(prompts), width, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, : width - len(prompt)] = False
    rows = torch.arange(len(prompts)).repeat_interleave(torch.tensor(counts)).to(device)
    ids, mask = ids.to(device), mask.to(device)
    if forward.way == "no cache":
        return forward.last_logits(ids)[rows], Recomputing(forward, ids[rows])
    masks = (mask, (mask.cumsum(1) - 1).clamp(min=0)) if forward.pads else (None, None)
    out = forward(ids, *masks, None)
    if compiled is not None:
        return out.logits[:, -1][rows], compiled.start(out.past_key_values, mask, rows, budget)
    return out.logits[:, -1][rows], Decoding(forward, out.past_key_values, mask, rows, budget)


class Decoding:
    """Rows of different length that leave the batch as they finish.

    Args:
        forward: the model.
        cache: of the prefilled prompts, padded on the left; taken over.
        mask: ``[P, L]`` bool, False where padding stands.
        rows: ``[R]`` int64, the prompt of each row.
        budget: tokens to come, at most.
    """

    def __init__(self, forward: Forward, cache: Any, mask: torch.Tensor, rows: torch.Tensor, budget: int):
        self.forward, self.cache = forward, cache
        self.filled = mask.shape[1]
        self.positions = mask.sum(1, keepdim=True)[rows]
        seen = torch.cat([mask[rows], mask.new_ones(len(rows), budget)], dim=1)
        spread_rows(cache, rows, self.filled + budget)
        if forward.pads and not forward.takes_additive_masks(cache):
            forward.way = "padded"
        self.mask = seen if forward.way == "padded" else additive(seen, forward.model.dtype)
        self.lean = forward.lean.start() if forward.lean is not None and forward.way == "lean" else None

    def drop(self, done: torch.Tensor, left: int) -> torch.Tensor | None:
        """Drop the rows that are ``done`` ``[R]`` if they are enough to be worth it; which old row then stands in each
        of the ``left`` places, or None."""
        if len(done) - left < DROP_SHARE * len(done):
            return None
        kept = keep_rows(self.cache, done, left)
        self.mask, self.positions = self.mask[kept], self.positions[kept]
        return kept

    def next_logits(self, chosen: torch.Tensor) -> torch.Tensor:
        """Logits ``[R, V]`` after the tokens ``chosen`` ``[R]``."""
        self.filled += 1
        given = chosen.unsqueeze(1), self.mask[..., : self.filled], self.positions, self.cache
        if not self.forward.pads:
            return self.forward(given[0], None, None, self.cache).logits[:, -1]
        logits = self.forward(*given).logits[:, -1] if self.lean is None else self.lean(*given)
        self.positions = self.positions + 1
        return logits


class Recomputing:
    """Rows of one length whose every token is made from the whole sequence: for models whose cache cannot be used."""

    def __init__(self, forward: Forward, ids: torch.Tensor):
        self.forward, self.ids = forward, ids

    def drop(self, done: torch.Tensor, left: int) -> torch.Tensor:
        """As :class:`Decoding`."""
        kept = (~done).nonzero().squeeze(1)
        self.ids = self.ids[kept]
        return kept

    def next_logits(self, chosen: torch.Tensor) -> torch.Tensor:
        """Logits ``[R, V]`` after the tokens ``chosen`` ``[R]``."""
        self.ids = torch.cat([self.ids, chosen.unsqueeze(1)], 1)
        return self.forward.last_logits(self.ids)


class CompiledForward:
    """The decoding step through torch.compile, with one set of buffers for each shape, kept from call to call: CUDA
    graphs replay on the addresses they were recorded with.

    Raises:
        ConfigError: the model's layers do not simply attend to all positions, or it makes its own mask, or it is
            quantized.
    """

    def __init__(self, forward: Forward):
        if any(isinstance(module, Quantized) for module in forward.model.modules()):
            raise ConfigError(
                "compiled sampling does not go together with fp8, whose rounding torch.compile cannot "
                "trace here. Leave compiled sampling off, or sample in bf16."
            )
        self.plain = forward
        mode = "reduce-overhead" if forward.model.device.type == "cuda" else "default"
        self.step = torch.compile(forward.__call__, dynamic=False, mode=mode)
        self.caches: dict[tuple[int, int], StaticCache] = {}

    def start(self, cache: Any, mask: torch.Tensor, rows: torch.Tensor, budget: int) -> CompiledDecoding:
        """As :class:`Decoding`."""
        if not self.plain.takes_additive_masks(cache):
            raise ConfigError(
                "compiled sampling needs a model with rotary positions whose layers all attend to every "
                "position (no sliding windows, no recurrent states). Leave compiled sampling off."
            )
        room = -(-(mask.shape[1] + budget) // ROOM) * ROOM
        shape = len(rows), room
        if shape not in self.caches:
            self.caches[shape] = StaticCache(config=self.plain.config, max_cache_len=room)
        return CompiledDecoding(self, self.caches[shape], cache, mask, rows, room)


class CompiledDecoding:
    """Rows that all stay to the end, in shapes that never change."""

    def __init__(
        self,
        compiled: CompiledForward,
        static: StaticCache,
        cache: Any,
        mask: torch.Tensor,
        rows: torch.Tensor,
        room: int,
    ):
        self.compiled, self.cache = compiled, static
        self.filled = mask.shape[1]
        self.positions = mask.sum(1, keepdim=True)[rows]
        seen = torch.cat([mask[rows], mask.new_zeros(len(rows), room - self.filled)], dim=1)
        self.mask = additive(seen, compiled.plain.model.dtype)
        for ours, filled in zip(static.layers, cache.layers, strict=True):
            assert isinstance(ours, StaticLayer)
            keys, values = filled.keys[rows], filled.values[rows]
            if not ours.is_initialized:
                ours.lazy_initialization(keys, values)
            assert ours.keys is not None and ours.values is not None
            ours.keys[:, :, : self.filled], ours.values[:, :, : self.filled] = keys, values
            ours.cumulative_length.fill_(self.filled)

    def drop(self, done: torch.Tensor, left: int) -> None:
        """Never: a batch without finished rows is another shape."""

    def next_logits(self, chosen: torch.Tensor) -> torch.Tensor:
        """Logits ``[R, V]`` after the tokens ``chosen`` ``[R]``."""
        self.mask[..., self.filled] = 0.0
        self.filled += 1
        out = self.compiled.step(chosen.unsqueeze(1), self.mask, self.positions, self.cache)
        self.positions += 1
        # A replay of the graph overwrites its output.
        return out.logits[:, -1].clone()


def additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``[R, 1, 1, L]``: 0 where ``seen`` ``[R, L]``, else the lowest number of ``dtype``."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None, None]
