"""The first and the last token of each response: a mask that is off by one.

A mask that begins one token too early counts the last token of the prompt; one that ends one too late counts padding.
The engine has no μ there, so that the log holds 0 or the value of another token, while the tokens between are right. If
the log has updates, only those of update 0 count: a policy that learns may change its first token more than others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Flags
from drpo.inspection.result import Finding

#: |log r| (nats) of a token that is not like the others, and log π below which an exact μ = 1 is not.
FAR, LESS = 1.0, np.log(0.99)
#: Share of the responses whose edge token is not like the others; so many times the share of inner tokens; fewest.
SHARE, TIMES, FEWEST = 0.2, 10.0, 10
#: Shorter responses are passed over.
SHORTEST = 4
PLACES = ("first", "last", "inner")
#: Rows of the counts beside the first, which is all tokens.
APART, ZERO = 1, 2


class Edges:
    """By place: tokens, those with a large |log r|, those with μ = 1 exactly and a smaller π."""

    def __init__(self) -> None:
        self.counts = {place: np.zeros(3, dtype=np.int64) for place in PLACES}

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        lengths, odd, used = part.lengths(), _odd(part), _used(part)
        first, last = part.starts[used], (part.starts + lengths - 1)[used]
        inner = np.repeat(used, lengths)
        self.counts["first"] += odd[:, first].sum(1)
        self.counts["last"] += odd[:, last].sum(1)
        self.counts["inner"] += odd[:, inner].sum(1) - odd[:, first].sum(1) - odd[:, last].sum(1)

    def pointed(self, part: Measured) -> Flags:
        """``[N]``: the edge tokens that are not like the tokens between."""
        odd, found = _odd(part), np.zeros(len(part.tokens), dtype=np.bool_)
        for place, row in self._faults():
            edges = (part.starts if place == "first" else part.starts + part.lengths() - 1)[_used(part)]
            found[edges] |= odd[row, edges]
        return found

    def found(self) -> Iterator[Finding]:
        """A fault for each edge that is not like the tokens between."""
        for place, row in self._faults():
            what = "μ = 1 exactly and a smaller π" if row == ZERO else f"|log π − log μ| > {FAR:g} nats"
            yield _finding(place, what, int(self.counts[place][row]), *self._shares(place, row))

    def _faults(self) -> Iterator[tuple[str, int]]:
        """Each such edge, and the row of the count that shows it."""
        for place in ("first", "last"):
            for row in (ZERO, APART):
                share, others = self._shares(place, row)
                if self.counts[place][row] >= FEWEST and share >= SHARE and share >= TIMES * others:
                    yield place, row
                    break

    def _shares(self, place: str, row: int) -> tuple[float, float]:
        """Of the tokens of ``place``, and of those between: how many a count has."""
        own, inner = self.counts[place], self.counts["inner"]
        return float(own[row] / max(own[0], 1)), float(inner[row] / inner[0]) if inner[0] else np.inf


def _used(part: Measured) -> Flags:
    """``[S]``: the sequences that are looked at."""
    return (part.lengths() >= SHORTEST) & part.fresh()[part.starts]


def _odd(part: Measured) -> Flags:
    """``[3, N]``: all tokens, those with a large |log r|, those with μ = 1 exactly and a smaller π."""
    zero = (part.tokens.behavior_logprobs == 0) & (part.tokens.logprobs < LESS)
    return np.stack((np.ones_like(zero), np.abs(part.log_ratio) > FAR, zero))


def _finding(place: str, what: str, count: int, share: float, others: float) -> Finding:
    first = place == "first"
    cause = (
        "The mask begins one token too early and counts the last token of the prompt, or the two sides begin the "
        "prompt differently (a BOS token, the chat template)"
        if first
        else "The mask ends one token too late and counts padding, or one side has no end token"
    )
    return Finding(
        "mask_edge",
        "fault",
        f"The {place} token of the responses is not a sampled one: the mask is off by one",
        f"{count:,} {place} tokens ({share:.0%} of the responses) have {what}, but only {others:.2%} of the tokens "
        "between the first and the last. The tests for shifted tokens, truncation and temperature were skipped.",
        f"{cause}. A response's mask is 1 from its first sampled token to its end token (or to the last one before "
        "the length limit). Compare the token ids at the edges of the mask with those that the engine returned.",
    )
