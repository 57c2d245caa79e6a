"""A chunk with what every accumulator needs of it, computed once, by the package's own maths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from drpo.batch import POSITIVE_TOLERANCE, TokenBatch
from drpo.divergence import binary_tv, ratio
from drpo.inspection.tokens import Flags, Floats, Integers, Tokens
from drpo.objectives.base import harmful


@dataclass(frozen=True, slots=True)
class Measured:
    """Usable tokens, and per token ``[N]``: log π − log μ (nats), |π − μ|, |Â| r, and whether Â(r − 1) > 0."""

    tokens: Tokens
    batch: TokenBatch
    log_ratio: Floats
    distance: Floats
    mass: Floats
    harmful: Flags

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
            (batch.advantages.abs() * ratio(batch.logprobs, batch.behavior_logprobs)).numpy(),
            harmful(batch.advantages, log_ratio).numpy(),
        )

    def steps(self) -> tuple[Integers, Integers]:
        """The steps of this chunk ``[S]``, and the position of each token's among them ``[N]``."""
        assert self.tokens.steps is not None
        low, high = int(self.tokens.steps.min()), int(self.tokens.steps.max())
        if high - low > 4 * len(self.tokens):
            return np.unique(self.tokens.steps, return_inverse=True)
        # Much faster than a sort, and a chunk rarely spans more steps than it has tokens.
        offset = self.tokens.steps - low
        present = np.bincount(offset) > 0
        return low + np.flatnonzero(present), (np.cumsum(present) - 1)[offset]


def usable(tokens: Tokens) -> Flags:
    """``[N]``: both log-probabilities are finite and not positive beyond rounding, optional columns finite."""
    good = np.ones(len(tokens), dtype=bool)
    for values in (tokens.logprobs, tokens.behavior_logprobs):
        good &= np.isfinite(values) & (values <= POSITIVE_TOLERANCE)
    for values in tokens.optional.values():
        good &= np.isfinite(values)
    return good
