"""A chunk of logged tokens: whole sequences, as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

#: Tokens that a chunk aims at. It ends with a sequence, so it may be longer.
CHUNK_TOKENS = 1 << 18

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tokens:
    """``N`` tokens of one file, in its order.

    Args:
        logprobs, behavior_logprobs: ``[N]`` float32, nats, as logged: NaN and positive ones included.
        advantages: ``[N]`` float32, finite.
        sequences: ``[N]`` int64, counted from 0 in this chunk, non-decreasing.
        steps: ``[N]`` int64, or None where the log has none.
        updates: ``[N]`` int64, the optimizer step within the step, from 0; or None where the log has none.
        rows: ``[N]`` int64, where each token stands in the file, counted from 1 (line or row).
        optional: name of an optional TokenBatch field → ``[N]`` float32.
        support_sizes: ``[N]`` float32, how many tokens truncated sampling kept in each token's state: π and μ are
            renormalized over them; or None where the log has none.
        texts, ids: ``[N]`` the text and the id of each token, unread until somebody asks; None where not logged.
        rewards, groups: ``[N]`` the reward and the group of each token's response, whatever the log has there, unread
            until somebody asks; None where not logged.
        source: the file.
        done: share of the file read so far.
    """

    logprobs: Floats
    behavior_logprobs: Floats
    advantages: Floats
    sequences: Integers
    rows: Integers
    source: str
    done: float
    steps: Integers | None = None
    updates: Integers | None = None
    optional: Mapping[str, Floats] = field(default_factory=dict)
    support_sizes: Floats | None = None
    texts: Sequence[Any] | None = None
    ids: Sequence[Any] | None = None
    rewards: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None

    def __len__(self) -> int:
        """The number of tokens, N."""
        return len(self.logprobs)

    def select(self, keep: Flags) -> Tokens:
        """The tokens where ``keep`` ``[N]`` says so."""
        if keep.all():
            return self
        kept = np.flatnonzero(keep)
        return replace(
            self,
            logprobs=self.logprobs[keep],
            behavior_logprobs=self.behavior_logprobs[keep],
            advantages=self.advantages[keep],
            sequences=self.sequences[keep],
            rows=self.rows[keep],
            steps=None if self.steps is None else self.steps[keep],
            updates=None if self.updates is None else self.updates[keep],
            optional={name: values[keep] for name, values in self.optional.items()},
            support_sizes=None if self.support_sizes is None else self.support_sizes[keep],
            texts=None if self.texts is None else Selected(self.texts, kept),
            ids=None if self.ids is None else Selected(self.ids, kept),
            rewards=None if self.rewards is None else Selected(self.rewards, kept),
            groups=None if self.groups is None else Selected(self.groups, kept),
        )


class Selected(Sequence[Any]):
    """The items of ``source`` at ``positions`` ``[N]``, looked up one by one when asked for."""

    def __init__(self, source: Sequence[Any], positions: npt.NDArray[np.integer]):
        self.source, self.positions = source, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Any) -> Any:
        return self.source[int(self.positions[index])]
