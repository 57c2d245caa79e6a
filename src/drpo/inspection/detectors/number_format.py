"""Faults that single values show: rounding to a narrow format, invalid log-probabilities, outliers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from drpo.batch import POSITIVE_TOLERANCE
from drpo.inspection.measured import Measured, filled_in
from drpo.inspection.readers.tokens import Flags, Floats, Tokens

#: Format → low bits of a float32 that are zero in all its numbers. Coarsest first.
FORMATS = {"bfloat16": 16, "float16": 13}
#: Share of the values that must lie on a format's grid; by chance it is 1 in 65,536 or 8,192.
ON_GRID, FEWEST = 0.9, 100
#: |log π − log μ| (nats) beyond which a token is an outlier: a factor of 148 in probability.
OUTLIER = 5.0

#: A positive value on at least this many tokens of a chunk, and no other one, was filled in. Values that are named.
FEWEST_REPEATED, MOST_REPEATED = 3, 3

SIDES = ("logprob", "behavior_logprob")


class Grids:
    """How many values of each side lie on the grid of a narrower format; exact zeros, which lie on all, left out."""

    def __init__(self) -> None:
        self.values: dict[str, int] = dict.fromkeys(SIDES, 0)
        self.on_grid: dict[tuple[str, str], int] = {(side, name): 0 for side in SIDES for name in FORMATS}

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        for side, values in zip(SIDES, (part.tokens.logprobs, part.tokens.behavior_logprobs), strict=True):
            bits = values[values != 0].view(np.uint32)
            self.values[side] += len(bits)
            for name, zeros in FORMATS.items():
                self.on_grid[side, name] += int((bits & np.uint32((1 << zeros) - 1) == 0).sum())

    def format_of(self, side: str) -> str | None:
        """The coarsest format that holds the side's values exactly, or None."""
        if self.values[side] < FEWEST:
            return None
        return next((name for name in FORMATS if self.share(side, name) >= ON_GRID), None)

    def share(self, side: str, name: str) -> float:
        """Of the side's values on the grid of that format."""
        return self.on_grid[side, name] / max(self.values[side], 1)


@dataclass(slots=True)
class Unusable:
    """Invalid log-probabilities, which are excluded everywhere else: how many, and where the first is."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    placeholders: int = 0

    def add(self, tokens: Tokens, usable: Flags) -> None:
        """Count those of one chunk."""
        if usable.all():
            return
        self.tokens += int((~usable).sum())
        for name, values in zip(SIDES, (tokens.logprobs, tokens.behavior_logprobs), strict=True):
            self._count(f"{name} is NaN or null", np.isnan(values), tokens, values)
            self._count(f"{name} is infinite", np.isinf(values), tokens, values)
            self._add_repeated(name, filled_in(values), tokens, values)
            positive = np.isfinite(values) & (values > POSITIVE_TOLERANCE)
            # One positive value all over was filled in; probabilities and negated losses differ.
            repeated = positive & (values == values[positive.argmax()])
            if repeated.sum() >= FEWEST_REPEATED and (repeated == positive).all():
                self._add_repeated(name, positive, tokens, values)
            else:
                self._count(f"{name} is positive", positive, tokens, values)
        for name, values in tokens.optional.items():
            self._count(f"{name} is not finite", ~np.isfinite(values), tokens, values)

    def _add_repeated(self, name: str, wrong: Flags, tokens: Tokens, values: Floats) -> None:
        """Count placeholders, the first few values by themselves."""
        self.placeholders += int(wrong.sum())
        for value in np.unique(values[wrong])[:MOST_REPEATED]:
            here = wrong & (values == value)
            what = f"{name} is {value:g}, a placeholder,"
            if what not in self.counts and len(self.counts) > 4 * MOST_REPEATED:
                what = f"{name} is another placeholder"
            self._count(what, here, tokens, values)

    def _count(self, what: str, wrong: Flags, tokens: Tokens, values: Floats) -> None:
        if wrong.any():
            at = int(wrong.argmax())
            self.counts[what] = self.counts.get(what, 0) + int(wrong.sum())
            self.first.setdefault(what, f"{tokens.source}, row {tokens.rows[at]}: {values[at]:g}")

    def kinds(self) -> str:
        """Each kind of invalid value, with its number of tokens and the first place."""
        return "; ".join(
            f"{what} on {n:,} token{'' if n == 1 else 's'}, first at {self.first[what]}"
            for what, n in self.counts.items()
        )


class Outliers:
    """Tokens whose log π and log μ differ by more than staleness explains."""

    @staticmethod
    def pointed(part: Measured) -> Flags:
        """``[N]``: these tokens."""
        return np.abs(part.log_ratio) > OUTLIER

    def __init__(self) -> None:
        self.count = 0
        self.mass = self.total_mass = 0.0
        self.furthest, self.where = 0.0, ""

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        apart, far = np.abs(part.log_ratio), self.pointed(part)
        self.count += int(far.sum())
        self.mass += float(part.mass[far].sum(dtype=np.float64))
        self.total_mass += float(part.mass.sum(dtype=np.float64))
        if len(apart) and apart.max() > self.furthest:
            at = int(apart.argmax())
            self.furthest, self.where = float(apart[at]), f"{part.tokens.source}, row {part.tokens.rows[at]}"
