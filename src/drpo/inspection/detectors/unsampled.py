"""Spans of tokens that the policy did not sample: prompts and tool output that no mask left out.

An engine has no μ for them. What a program writes there is one value, often 0, or a copy of π. Sampled tokens stand
between such spans, and there the two sides differ. Decided tokens (π > 0.99) are passed over: both sides round to the
same value there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Flags, Integers
from drpo.inspection.result import Finding
from drpo.inspection.runs import in_runs, runs

#: log π above which a token is passed over (nats).
DECIDED = np.log(0.99)
#: Fewest tokens of a span; fewest tokens in spans, in number and as a share of those that are not passed over.
FEWEST_IN_SPAN, FEWEST, SHARE = 3, 30, 0.002
#: How often such a token follows another one, at least; and so many times as often as it follows any other token.
STAYS, TIMES = 0.6, 3.0
#: Beside copies of π, tokens of the same sequence differ by more than rounding (nats).
DIFFERENT = 1e-3
#: Share of the tokens in spans at the beginning of sequences that makes them prompts, and else inner ones.
LEADING = 0.9


@dataclass(slots=True)
class _Kind:
    """Tokens of one kind, over all chunks."""

    #: Tokens that follow one of the kind, and those of the kind among them; then the same for other tokens.
    after: int = 0
    stays: int = 0
    after_others: int = 0
    begins: int = 0
    #: In spans: tokens, those in spans that begin a sequence, sequences, |Â r|.
    tokens: int = 0
    leading: int = 0
    spans: int = 0
    mass: float = 0.0

    def add(self, chosen: Flags, sequences: Integers, leads: Flags, mass: np.ndarray) -> None:
        """Count ``chosen`` ``[N]``; ``leads`` are the tokens that begin a sequence."""
        follows = sequences[1:] == sequences[:-1]
        before, now = chosen[:-1][follows], chosen[1:][follows]
        self.after += int(before.sum())
        self.stays += int((before & now).sum())
        self.after_others += int((~before).sum())
        self.begins += int((~before & now).sum())
        first, lengths = runs(chosen, sequences)
        long = lengths >= FEWEST_IN_SPAN
        first, lengths = first[long], lengths[long]
        self.tokens += int(lengths.sum())
        self.leading += int(lengths[leads[first]].sum())
        self.spans += len(first)
        total = np.concatenate(([0.0], np.cumsum(mass, dtype=np.float64)))
        self.mass += float((total[first + lengths] - total[first]).sum())

    def found(self, considered: int) -> bool:
        """Whether the tokens stand in spans."""
        enough = self.tokens >= max(FEWEST, SHARE * considered) and self.after_others >= FEWEST
        stays, begins = self.stays / max(self.after, 1), self.begins / max(self.after_others, 1)
        return enough and stays >= max(STAYS, TIMES * begins)


class Unsampled:
    """Spans in which log μ is 0, and in which it is log π."""

    def __init__(self) -> None:
        self.considered = 0
        self.total_mass = 0.0
        self.zeros, self.copies = _Kind(), _Kind()

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        self.total_mass += float(part.mass.sum(dtype=np.float64))
        kept = np.flatnonzero(part.tokens.logprobs < DECIDED)
        if not len(kept):
            return
        self.considered += len(kept)
        sequences, mass = part.tokens.sequences[kept], part.mass[kept]
        leads = np.diff(sequences, prepend=sequences[0] - 1) > 0
        self.zeros.add(_zeros(part, kept), sequences, leads, mass)
        self.copies.add(_copies(part, kept, leads), sequences, leads, mass)

    @property
    def _is_copied(self) -> bool:
        """Whether there is more in spans of copies than of zeros."""
        return self.copies.tokens > self.zeros.tokens

    def pointed(self, part: Measured) -> Flags:
        """``[N]``: the tokens of spans of the kind that there is more of."""
        found = np.zeros(len(part.tokens), dtype=np.bool_)
        kept = np.flatnonzero(part.tokens.logprobs < DECIDED)
        if len(kept):
            sequences = part.tokens.sequences[kept]
            leads = np.diff(sequences, prepend=sequences[0] - 1) > 0
            chosen = _copies(part, kept, leads) if self._is_copied else _zeros(part, kept)
            found[kept] = in_runs(chosen, sequences, FEWEST_IN_SPAN)
        return found

    def found(self) -> Iterator[Finding]:
        """A fault for the kind that there is more of."""
        what, kind = ("a copy of log π", self.copies) if self._is_copied else ("exactly 0", self.zeros)
        if not kind.found(self.considered):
            return
        leading = kind.leading / kind.tokens
        if leading >= LEADING:
            name, where = "Prompt tokens", "at the beginning of responses"
        elif leading <= 1 - LEADING:
            name, where = "Tool output or other inserted tokens", "inside responses"
        else:
            name, where = "Prompt or tool tokens", f"{leading:.0%} of them at the beginning of responses"
        yield Finding(
            "unsampled",
            "fault",
            f"{name} are counted: log μ is {what} on spans of tokens that were not sampled",
            f"log μ is {what} on {kind.tokens:,} tokens in {kind.spans:,} spans {where}, where π is below 0.99. "
            f"{kind.stays / max(kind.after, 1):.0%} of these tokens follow another one, while "
            f"{kind.begins / max(kind.after_others, 1):.2%} follow any other token. They have "
            f"{kind.mass / max(self.total_mass, 1e-300):.2g} of the gradient mass |Â r|. The tests for shifted tokens, "
            "truncation and temperature were skipped.",
            "The policy did not sample these tokens, so that they have no μ and should have no gradient. Exclude them "
            "with a mask that is 1 on sampled tokens alone: mask here, response_mask (verl), completion_mask × "
            "tool_mask (TRL), loss_mask (prime-rl, SkyRL). If the log has such a column under another name, give "
            "--map mask=NAME.",
        )


def _zeros(part: Measured, kept: Integers) -> Flags:
    """``[K]``: which of the tokens ``kept`` ``[K]`` have a log μ of 0."""
    return part.tokens.behavior_logprobs[kept] == 0


def _copies(part: Measured, kept: Integers, leads: Flags) -> Flags:
    """``[K]``: which of them have a copy of log π, in sequences with other tokens that differ."""
    apart = np.abs(part.log_ratio[kept])
    copied = (apart == 0) & (part.tokens.behavior_logprobs[kept] != 0)
    if copied.any():
        furthest = np.maximum.reduceat(apart, np.flatnonzero(leads))
        copied &= (furthest > DIFFERENT)[np.cumsum(leads) - 1]
    return copied
