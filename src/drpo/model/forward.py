"""The hidden states that predict response tokens, each prompt passed through the model once for all its responses.

Shapes: ``P`` prompts, ``B`` sequences, ``L`` prompt positions, ``T`` response positions, ``N`` response tokens, ``H``
hidden width, ``M`` routers, ``K`` experts a token.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import DynamicCache

from drpo.errors import DataError
from drpo.model.packed import Packing
from drpo.model.probe import without_cache
from drpo.support import Support

#: How the trainer's log π is made, the fastest first: without padding, responses share their prompt's pass; these share
#: it too, and are padded; whole sequences padded on the right; whole sequences of one length together.
PACKED, SHARED, PADDED, EQUAL = "packed", "shared prompts", "padded", "equal lengths"


@dataclass(frozen=True, slots=True)
class Sequences:
    """One response with its prompt, as the trainer sees it; ``support`` and ``experts`` as in
    :class:`drpo.rollouts.Response`."""

    prompt_ids: Sequence[int]
    token_ids: Sequence[int]
    experts: torch.Tensor | None = field(default=None, compare=False, repr=False)
    support: Support | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class ForwardSettings:
    """How log π is recomputed: logits are divided by ``temperature``, and one forward pass has at most
    ``micro_batch_tokens`` positions (a longer sequence goes alone)."""

    temperature: float
    micro_batch_tokens: int


def default_micro_batch_tokens(device: torch.device) -> int:
    """Positions in one forward pass where the configuration names none."""
    # On a CPU small micro-batches stay in its cache: measured a quarter faster than one of 16,384 tokens.
    return 1536 if device.type == "cpu" else 16_384


def targets(sequences: Sequence[Sequences], device: torch.device) -> torch.Tensor:
    """``[N]`` int64: the response tokens in order."""
    return torch.tensor([token for sequence in sequences for token in sequence.token_ids]).to(device)


def supports(sequences: Sequence[Sequences], device: torch.device) -> Support | None:
    """Of the response tokens in order; None where no sequence has one.

    Raises:
        DataError: some have one and others not, or one has not as many as tokens.
    """
    parts = [sequence.support for sequence in sequences if sequence.support is not None]
    if not parts:
        return None
    for sequence in sequences:
        count = None if sequence.support is None else len(sequence.support)
        if count != len(sequence.token_ids):
            raise DataError(
                f"a response of {len(sequence.token_ids)} tokens has {count or 'no'} supports. Truncated sampling must "
                "report one for each token of every response."
            )
    return Support.concatenate(parts).to(device)


def response_states(backbone: Any, sequences: Sequence[Sequences], way: str) -> torch.Tensor:
    """``[N, H]``: the state before every response token of ``sequences``, in order, made in one ``way``.

    Where sequences with one prompt share its pass, the gradient runs through their common keys and values.
    """
    prompts = distinct_prompts(sequences)
    if way == PACKED:
        index = {prompt: row for row, prompt in enumerate(prompts)}
        rows = [index[tuple(sequence.prompt_ids)] for sequence in sequences]
        packing = Packing(prompts, [sequence.token_ids for sequence in sequences], rows, backbone.device)
        return packing.states(backbone, **without_cache(backbone))
    if way != SHARED or len(prompts) == len(sequences):
        ids, at = positions(sequences)
        device = backbone.device
        states = backbone(input_ids=ids.to(device), **without_cache(backbone)).last_hidden_state
        return at_places(states, at.to(device))
    return Prompts(backbone, prompts, detached=False).states(sequences)


def in_groups(
    compute: Callable[[Sequence[Sequences]], torch.Tensor],
    sequences: Sequence[Sequences],
    key: Callable[[int], Hashable],
) -> torch.Tensor:
    """``compute`` of those ``sequences`` together whose length has one ``key``: ``[N, …]``, one row a response token,
    in the order of ``sequences``."""
    groups: dict[Hashable, list[int]] = {}
    for row, sequence in enumerate(sequences):
        groups.setdefault(key(len(sequence)), []).append(row)
    if len(groups) == 1:
        return compute(sequences)
    parts: dict[int, torch.Tensor] = {}
    for rows in groups.values():
        found = compute([sequences[row] for row in rows])
        parts |= dict(zip(rows, found.split([len(sequences[row].token_ids) for row in rows]), strict=True))
    return torch.cat([parts[row] for row in range(len(sequences))])


def positions(sequences: Sequence[Sequences]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids ``[B, L + T]``, and the place before each response token as (row, column) ``[2, N]``.

    Padding stands on the right, where a causal model never looks: no attention mask is needed.
    """
    starts = [len(sequence.prompt_ids) - 1 for sequence in sequences]
    ids = padded([[*sequence.prompt_ids, *sequence.token_ids] for sequence in sequences])
    return ids, _places([len(sequence.token_ids) for sequence in sequences], starts)


def padded_experts(sequences: Sequence[Sequences]) -> torch.Tensor:
    """``[B, L + T, M, K]`` int64: the experts of each place of :func:`positions`; −1 where none were chosen.

    Raises:
        DataError: those of a sequence are missing, or not one for each position.
    """
    width, rows = max(len(sequence) for sequence in sequences), []
    for sequence in sequences:
        if sequence.experts is None or len(sequence.experts) != len(sequence) - 1:
            found = "none" if sequence.experts is None else f"those of {len(sequence.experts)}"
            raise DataError(
                f"a sequence of {len(sequence)} tokens needs the experts of {len(sequence) - 1} positions, "
                f"got {found}. The sampler has to report the experts of every position."
            )
        missing = width - len(sequence.experts)
        rows.append(functional.pad(sequence.experts.long(), (0, 0, 0, 0, 0, missing), value=-1))
    return torch.stack(rows)


class Prompts:
    """Prompts that have passed through the model, for responses to go on from.

    Args:
        backbone: of a model whose prompts can be shared (:mod:`drpo.model.start_check`).
        prompts: different ones.
        detached: gradients of several micro-batches are collected here, and :meth:`backward` passes them on once.
    """

    def __init__(self, backbone: Any, prompts: Sequence[Sequence[int]], detached: bool):
        self.backbone = backbone
        self.index = {tuple(prompt): row for row, prompt in enumerate(prompts)}
        self.lengths = torch.tensor([len(prompt) for prompt in prompts]).to(backbone.device)
        ids = padded(prompts).to(backbone.device)
        self.width = ids.shape[1]
        out = backbone(input_ids=ids, use_cache=True)
        rows = torch.arange(len(prompts), device=ids.device)
        last = at_places(out.last_hidden_state, torch.stack([rows, self.lengths - 1]))
        #: The last states ``[P, H]``, then keys and values of each layer.
        self.made = [last, *(part for layer in out.past_key_values.layers for part in (layer.keys, layer.values))]
        self.held = [part.detach().requires_grad_(part.requires_grad) for part in self.made] if detached else self.made

    def states(self, sequences: Sequence[Sequences]) -> torch.Tensor:
        """``[N, H]``: as :func:`response_states`."""
        device, responses = self.backbone.device, [sequence.token_ids for sequence in sequences]
        rows = torch.tensor([self.index[tuple(sequence.prompt_ids)] for sequence in sequences]).to(device)
        last, *states = (part.index_select(0, rows) for part in self.held)
        found = last.unsqueeze(1)
        # The last token of a response predicts nothing that is trained.
        inner = padded([response[:-1] for response in responses]).to(device)
        if inner.shape[1]:
            cache = DynamicCache()
            for layer, (keys, values) in enumerate(zip(states[::2], states[1::2], strict=True)):
                cache.update(keys, values, layer)
            lengths = self.lengths[rows].unsqueeze(1)
            seen = torch.arange(self.width, device=device) < lengths
            further = torch.arange(inner.shape[1], device=device)
            out = self.backbone(
                input_ids=inner,
                attention_mask=torch.cat([seen, torch.ones_like(inner, dtype=torch.bool)], 1),
                position_ids=lengths + further,
                past_key_values=cache,
                use_cache=True,
            )
            found = torch.cat([found, out.last_hidden_state], 1)
        return at_places(found, _places([len(response) for response in responses], [0] * len(responses)).to(device))

    def backward(self) -> None:
        """Pass on to the model's parameters what the micro-batches left."""
        parts = [(made, held.grad) for made, held in zip(self.made, self.held, strict=True) if held.grad is not None]
        if parts:
            torch.autograd.backward([made for made, _ in parts], [gradient for _, gradient in parts])


def micro_batches(
    sequences: Sequence[Sequences], max_tokens: int, way: str, prompts_done: bool = False
) -> list[list[int]]:
    """Indices of ``sequences`` in groups that take at most ``max_tokens`` positions; a larger sequence goes alone.

    Packed sequences of one prompt stand together. Of padded ones, those of like length or those of one prompt, whatever
    is less to compute. With ``prompts_done`` the prompts take no position.
    """
    if not sequences:
        return []
    index = {prompt: row for row, prompt in enumerate(distinct_prompts(sequences))}
    prompt_of_row = [index[tuple(sequence.prompt_ids)] for sequence in sequences]
    lengths = [(len(sequence.token_ids) if way == SHARED else 0, len(sequence)) for sequence in sequences]
    by_length = sorted(range(len(sequences)), key=lambda row: lengths[row])
    by_prompt = sorted(by_length, key=lambda row: prompt_of_row[row])
    orders = {PACKED: (by_prompt,), SHARED: (by_length, by_prompt)}
    choices = []
    for order in orders.get(way, (by_length,)):
        parts = [MicroBatch(way)]
        for row in order:
            added = row, sequences[row], None if prompts_done else prompt_of_row[row]
            grown = parts[-1].with_row(*added)
            if parts[-1].rows and grown.positions > max_tokens:
                parts.append(MicroBatch(way).with_row(*added))
            else:
                parts[-1] = grown
        choices.append(parts)
    best = min(choices, key=lambda parts: sum(part.positions for part in parts))
    return [list(part.rows) for part in best]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows that go through the model together, and what decides how many ``positions`` it computes for them."""

    way: str
    rows: tuple[int, ...] = ()
    prompts: frozenset[int] = frozenset()
    tokens: int = 0
    longest: int = 0
    longest_prompt: int = 0
    longest_response: int = 0

    def with_row(self, row: int, sequence: Sequences, prompt: int | None) -> MicroBatch:
        """These rows and one more, whose prompt is the ``prompt``-th, or is computed elsewhere."""
        new = prompt is not None and prompt not in self.prompts
        return MicroBatch(
            self.way,
            (*self.rows, row),
            self.prompts if prompt is None else self.prompts | {prompt},
            self.tokens + len(sequence.token_ids) - 1 + (len(sequence.prompt_ids) if new else 0),
            max(self.longest, len(sequence)),
            max(self.longest_prompt, len(sequence.prompt_ids)),
            max(self.longest_response, len(sequence.token_ids)),
        )

    @property
    def positions(self) -> int:
        """Positions, padding included."""
        if self.way == PACKED:
            return self.tokens
        if self.way != SHARED or len(self.prompts) == len(self.rows):
            return len(self.rows) * self.longest
        return len(self.prompts) * self.longest_prompt + len(self.rows) * (self.longest_response - 1)


def distinct_prompts(sequences: Sequence[Sequences]) -> list[tuple[int, ...]]:
    """The different prompts of ``sequences``, in order."""
    return list(dict.fromkeys(tuple(sequence.prompt_ids) for sequence in sequences))


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """``[B, T]`` int64, zeros on the right."""
    ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return ids


def at_places(states: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """``[N, H]``: of ``states`` ``[B, T, H]`` those at (row, column) ``at`` ``[2, N]``."""
    # Not states[rows, columns]: on a CPU with several threads its backward adds in any order, that of index_select in
    # the order of the index.
    rows, columns = at
    return states.flatten(0, 1).index_select(0, rows * states.shape[1] + columns)


def _places(lengths: Sequence[int], starts: Sequence[int]) -> torch.Tensor:
    """``[2, N]``: rows, and columns from each row's start on."""
    counts = torch.tensor(lengths)
    rows = torch.arange(len(lengths)).repeat_interleave(counts)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    columns = torch.arange(int(counts.sum())) - first + torch.tensor(starts).repeat_interleave(counts)
    return torch.stack([rows, columns])
