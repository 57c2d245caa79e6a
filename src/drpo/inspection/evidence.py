"""What findings are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo.inspection.counters import Counters
from drpo.inspection.detectors.number_format import Unusable
from drpo.inspection.readers.reading import Reading
from drpo.mismatch.temperature import Slope
from drpo.objectives import Objective

#: Share of the tokens with r = 1 that makes a trust region inert.
INERT = 0.999


@dataclass(frozen=True, slots=True)
class Evidence:
    """All counts of a log. ``bounded`` are the objectives that bound |π − μ|, ``outcome`` what its run came to."""

    tokens: int
    delta: float
    counted: Counters
    slope: Slope | None
    unusable: Unusable
    bounded: Sequence[Objective]
    reading: Reading
    outcome: Mapping[str, Any]

    @property
    def is_inert(self) -> bool:
        """Whether r = 1 throughout."""
        return self.counted.distributions.near >= INERT * self.tokens

    @property
    def shift_tail(self) -> float | None:
        """The 99 % quantile of |π − μ|; None where it is below what is counted."""
        (tail,) = self.counted.distributions.shift.quantiles((0.99,))
        return None if tail is None else 10**tail


def said(count: int) -> str:
    """``count`` tokens, in words."""
    return f"{count:,} token{'' if count == 1 else 's'}"
