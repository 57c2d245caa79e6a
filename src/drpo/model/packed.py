"""Prompts and responses side by side in one row, without padding: the model computes real tokens alone.

Attention is the one operation that looks from token to token. Within :func:`attending` the model's own is replaced by
one that cuts the row into its sequences, so that a response sees its prompt and itself. A prompt passes through the
model once for all of its responses.

Shapes: ``P`` prompts of at most ``L`` tokens, ``B`` responses of at most ``T``, ``M`` tokens of one kind, ``N`` tokens
in all, ``A`` attention heads, ``D`` head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional

from drpo.errors import ConfigError

#: What the model's configuration calls this attention.
NAME = "drpo_packed"
#: What some models ask of attention beside scores and a softmax.
BEYOND = ("softcap", "position_bias", "s_aux")


class Block:
    """Sequences of ``lengths`` one after another ``[M, …]``, and where they stand in a padded ``[R, W, …]``."""

    def __init__(self, lengths: Sequence[int], device: torch.device):
        counts = torch.tensor(lengths)
        self.rows, self.width, self.tokens = len(lengths), max(lengths), int(counts.sum())
        first = counts.cumsum(0) - counts
        steps = torch.arange(self.width)
        inside = steps < counts.unsqueeze(1)
        #: ``[M]``: the column of each token in its row, and its place in the padded rows laid end to end.
        self.columns = steps.expand(self.rows, -1)[inside]
        self.places = (torch.arange(self.rows).unsqueeze(1) * self.width + steps)[inside].to(device)
        #: ``[R · W]``: which token stands in each padded place; any, where none does.
        self.tokens_at = torch.where(inside, first.unsqueeze(1) + steps, 0).flatten().to(device)
        self.inside = inside.to(device)

    def pad(self, values: torch.Tensor) -> torch.Tensor:
        """``[R, A, W, D]`` of ``values`` ``[M, A, D]``. The padding holds copies of tokens; its gradient
        is dropped, so that it must be 0."""
        padded = _Move.apply(values, self.tokens_at, self.places)
        return padded.unflatten(0, (self.rows, self.width)).transpose(1, 2)  # pyright: ignore[reportOptionalMemberAccess]

    def unpad(self, values: torch.Tensor) -> torch.Tensor:
        """``[M, A, D]`` of ``values`` ``[R, A, W, D]``."""
        return values.transpose(1, 2).flatten(0, 1).index_select(0, self.places)


class _Move(torch.autograd.Function):
    """``values[tokens_at]``; the gradient of each value is that of its one place in ``places``."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, tokens_at: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(places)
        return values.index_select(0, tokens_at)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradients[0].index_select(0, places), None, None


class Packing:
    """One row of tokens: the ``prompts``, then what of their responses goes into the model. If no prompt has two
    responses, each response follows its prompt, and attention needs no mask.

    Args:
        prompts: different ones.
        responses: token ids of each response. The last predicts nothing that is trained, and stays outside.
        rows: the prompt of each response.
        device: of the model.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        rows: Sequence[int],
        device: torch.device,
    ):
        inner = [response[:-1] for response in responses]
        starts = [len(prompts[row]) for row in rows]
        shared = len(prompts) < len(responses)
        leading = prompts if shared else [[*prompts[row], *part] for row, part in zip(rows, inner, strict=True)]
        following = inner if shared else []
        self.leading = Block([len(part) for part in leading], device)
        self.following = Block([len(part) for part in following], device) if any(following) else None
        self.rows = torch.tensor(rows).to(device)
        positions = self.leading.columns
        if self.following is not None:
            counts = torch.tensor([len(part) for part in following])
            after = torch.tensor(starts).repeat_interleave(counts) + self.following.columns
            positions = torch.cat([positions, after])
        #: ``[1, N]`` each.
        self.ids = torch.tensor([[token for part in (*leading, *following) for token in part]]).to(device)
        self.positions = positions.unsqueeze(0).to(device)
        #: ``[·]``: where in the row the state before each response token is: after the prompt, then after each token.
        self.before = torch.tensor(self._before(leading, inner, rows, shared)).to(device)
        self._mask: torch.Tensor | None = None

    def _before(
        self,
        leading: Sequence[Sequence[int]],
        inner: Sequence[Sequence[int]],
        rows: Sequence[int],
        shared: bool,
    ) -> list[int]:
        ends = list(accumulate(len(part) for part in leading))
        found, at = [], self.leading.tokens
        for index, (part, row) in enumerate(zip(inner, rows, strict=True)):
            if shared:
                found += [ends[row] - 1, *range(at, at + len(part))]
                at += len(part)
            else:
                found += range(ends[index] - len(part) - 1, ends[index])
        return found

    def states(self, backbone: Any, **options: Any) -> torch.Tensor:
        """``[·, H]``: the state of ``backbone`` before every response token, in order."""
        with attending(backbone.config.get_text_config(), self):
            out = backbone(input_ids=self.ids, position_ids=self.positions, **options)
        return out.last_hidden_state[0].index_select(0, self.before)

    def attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """``[1, N, A, D]``: scaled dot-product attention of ``[1, A, N, D]`` within each sequence."""
        split = [self.leading.tokens, query.shape[2] - self.leading.tokens]
        (q, q_after), (k, k_after), (v, v_after) = (
            part[0].transpose(0, 1).split(split) for part in (query, key, value)
        )
        k, v = self.leading.pad(k), self.leading.pad(v)
        found = self.leading.unpad(_attend(self.leading.pad(q), k, v, None, scale))
        if self.following is not None:
            keys, values = (
                torch.cat([of_prompt.index_select(0, self.rows), self.following.pad(own)], 2)
                for of_prompt, own in ((k, k_after), (v, v_after))
            )
            after = _attend(self.following.pad(q_after), keys, values, self._seen(query.dtype), scale)
            found = torch.cat([found, self.following.unpad(after)])
        return found.unsqueeze(0)

    def _seen(self, dtype: torch.dtype) -> torch.Tensor:
        """``[B, 1, T, L + T]``, added to the scores: a response's tokens see its prompt and those before them."""
        if self._mask is None or self._mask.dtype != dtype:
            assert self.following is not None
            width, device = self.following.width, self.rows.device
            seen = self.leading.inside[self.rows].unsqueeze(1).expand(-1, width, -1)
            causal = torch.ones(width, width, dtype=torch.bool, device=device).tril().expand(len(seen), -1, -1)
            mask = torch.zeros(len(seen), 1, width, seen.shape[2] + width, dtype=dtype, device=device)
            self._mask = mask.masked_fill_(~torch.cat([seen, causal], 2).unsqueeze(1), -torch.inf)
        return self._mask


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    if grouped and mask is not None and query.is_cuda:
        # The fast kernels of CUDA take either a mask or fewer key heads than query heads.
        key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], 1) for part in (key, value))
        grouped = False
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )


_PACKING: ContextVar[Packing] = ContextVar("packing")


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for a layer's attention within :func:`attending`."""
    if others := [name for name in BEYOND if options.get(name) is not None]:
        raise ConfigError(f"packed attention knows no {', '.join(others)}")
    return _PACKING.get().attention(query, key, value, scaling), None


@contextmanager
def attending(config: Any, packing: Packing) -> Iterator[None]:
    """Within it, models of ``config`` attend within the sequences of ``packing``."""
    from transformers import AttentionInterface  # takes seconds, unless there is a model already

    AttentionInterface.register(NAME, _attention)
    implementation, token = config._attn_implementation, _PACKING.set(packing)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = implementation
        _PACKING.reset(token)
