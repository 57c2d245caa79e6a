"""A chunk with what every accumulator needs of it, computed once, by the package's own maths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from drpo.batch import POSITIVE_TOLERANCE, TokenBatch
from drpo.divergence import binary_tv, ratio
from drpo.inspection.readers.tokens import Flags, Floats, Integers, Tokens
from drpo.objectives.base import is_diverging


@dataclass(frozen=True, slots=True)
class Measured:
    """Usable tokens, and per token ``[N]``: log π − log μ (nats), |π − μ|, |Â| r, and whether Â(r − 1) > 0.

    ``starts`` ``[S]`` is where each sequence begins.
    """

    tokens: Tokens
    batch: TokenBatch
    log_ratio: Floats
    distance: Floats
    mass: npt.NDArray[np.floating]
    diverging: Flags
    starts: Integers

    @classmethod
    def of(cls, tokens: Tokens) -> Measured:
        """Measure ``tokens``, which must all be :func:`usable`."""
        batch = TokenBatch(
            torch.from_numpy(tokens.logprobs),
            torch.from_numpy(tokens.behavior_logprobs),
            torch.from_numpy(tokens.advantages),
            sequence_ids=torch.from_numpy(tokens.sequences),
            **{name: torch.from_numpy(values) for name, values in tokens.optional.items()},
            validate=False,
        )
        log_ratio = batch.logprobs - batch.behavior_logprobs
        return cls(
            tokens,
            batch,
            log_ratio.numpy(),
            binary_tv(batch.logprobs, batch.behavior_logprobs).numpy(),
            _mass(batch),
            is_diverging(batch.advantages, log_ratio).numpy(),
            np.flatnonzero(np.diff(tokens.sequences, prepend=tokens.sequences[0] - 1)),
        )

    def fresh(self) -> Flags:
        """``[N]`` tokens whose π may have the weights that sampled: those of update 0, or all without updates."""
        updates = self.tokens.updates
        return np.ones(len(self.tokens), dtype=np.bool_) if updates is None else updates == 0

    def lengths(self) -> Integers:
        """``[S]`` the tokens of each sequence."""
        return np.diff(self.starts, append=len(self.tokens))

    def steps(self) -> tuple[Integers, Integers]:
        """The steps of this chunk ``[S]``, and the position of each token's among them ``[N]``."""
        assert self.tokens.steps is not None
        return distinct(self.tokens.steps)


def joined(parts: Sequence[Measured]) -> Measured:
    """The tokens of several chunks as one, without their texts; all have steps, or none has. The source of the whole is
    no file."""
    if len(parts) == 1:
        return parts[0]
    chunks = [part.tokens for part in parts]
    first = np.cumsum([0, *(int(chunk.sequences[-1]) + 1 for chunk in chunks)])
    steps = [chunk.steps for chunk in chunks if chunk.steps is not None]
    return Measured.of(
        Tokens(
            np.concatenate([chunk.logprobs for chunk in chunks]),
            np.concatenate([chunk.behavior_logprobs for chunk in chunks]),
            np.concatenate([chunk.advantages for chunk in chunks]),
            np.concatenate([chunk.sequences + before for chunk, before in zip(chunks, first, strict=False)]),
            np.concatenate([chunk.rows for chunk in chunks]),
            "several files",
            1.0,
            steps=np.concatenate(steps) if steps else None,
            optional={name: np.concatenate([chunk.optional[name] for chunk in chunks]) for name in chunks[0].optional},
        )
    )


def distinct(values: Integers) -> tuple[Integers, Integers]:
    """The different ``values`` ``[N]`` in order ``[S]``, and the position of each value among them ``[N]``."""
    low, high = int(values.min()), int(values.max())
    if high - low > 4 * len(values):
        return np.unique(values, return_inverse=True)
    # Much faster than a sort, and a chunk rarely spans more steps than it has tokens.
    offset = values - low
    present = np.bincount(offset) > 0
    return low + np.flatnonzero(present), (np.cumsum(present) - 1)[offset]


def _mass(batch: TokenBatch) -> npt.NDArray[np.floating]:
    """``[N]`` |Â| r, in double precision where single precision overflows."""
    r = ratio(batch.logprobs, batch.behavior_logprobs)
    mass = batch.advantages.abs() * r
    return (mass if bool(mass.isfinite().all()) else batch.advantages.abs().double() * r.double()).numpy()


#: Whole log-probabilities below this are what was written where there was none: −100, −9999, −1e9, the lowest float.
LOWEST = -50.0


def usable(tokens: Tokens) -> Flags:
    """``[N]``: both log-probabilities are ones that a sampled token can have, optional columns finite."""
    good = np.ones(len(tokens), dtype=bool)
    for values in (tokens.logprobs, tokens.behavior_logprobs):
        good &= np.isfinite(values) & (values <= POSITIVE_TOLERANCE) & ~filled_in(values)
    for values in tokens.optional.values():
        good &= np.isfinite(values)
    return good


def filled_in(values: Floats) -> Flags:
    """``[N]``: log-probabilities that a program fills in, far down and without a fraction."""
    return (values <= LOWEST) & (values == np.floor(values)) & np.isfinite(values)
