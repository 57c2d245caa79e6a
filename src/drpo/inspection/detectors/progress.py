"""How responses change over the steps of a log: entropy, length, repetition.

The first quarter of the steps is compared with the last. Two means over responses differ if they are more than four
standard errors apart, where the standard error is the larger one of that over responses and that over steps: responses
of one step share their weights and their prompts. The entropy of a response is the mean of its entropy column, else of
−log μ, whose expectation it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from drpo.inspection.measured import Measured, distinct
from drpo.inspection.readers.tokens import Integers
from drpo.inspection.result import Finding
from drpo.inspection.token_ids import integer_ids

#: Fewest steps, fewest responses of a quarter, and standard errors between two means that differ.
FEWEST_STEPS, FEWEST, APART = 8, 20, 4.0
#: Entropy: how much less at the end is a fall (from at least so many nats), how much more is a rise (to at least).
FALLS, FALLS_FROM, RISES, RISES_TO = 0.25, 0.02, 3.0, 0.5
#: Length: this part of the first is a collapse; share of the responses at the longest length, at the end and before.
SHRINKS, AT_LIMIT, AT_LIMIT_BEFORE = 0.2, 0.5, 0.2
#: Tokens of a repeated piece; share of the tokens in repeated pieces at the end, and its least rise.
PIECE, REPEATED, REPEATS_MORE = 4, 0.3, 0.2
#: Per step and quantity: responses, Σ x, Σ x².
ENTROPY, LENGTH, REPETITION = range(3)


@dataclass(frozen=True, slots=True)
class Change:
    """A mean over responses in the first and in the last quarter of the steps; how many standard errors they differ."""

    first: float
    last: float
    apart: float


class Progress:
    """Sums over responses by step."""

    def __init__(self) -> None:
        self.steps: dict[int, np.ndarray] = {}
        #: Step → longest response, and how many have its length.
        self.longest: dict[int, tuple[int, int]] = {}
        self.has_entropy = False

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        tokens = part.tokens
        if tokens.steps is None:
            return
        lengths = part.lengths()
        entropy = tokens.optional.get("entropy")
        self.has_entropy = entropy is not None
        nats = -tokens.behavior_logprobs if entropy is None else entropy
        repeated = repeated_share(integer_ids(tokens.ids), tokens.sequences, part.starts, lengths)
        quantities = np.stack((np.add.reduceat(nats, part.starts, dtype=np.float64) / lengths, lengths, repeated))
        known = np.isfinite(quantities)
        values = np.where(known, quantities, 0.0)
        steps, index = distinct(tokens.steps[part.starts])
        sums = np.zeros((len(steps), len(quantities), 3))
        for quantity in range(len(quantities)):
            for column, weights in enumerate((known[quantity], values[quantity], values[quantity] ** 2)):
                sums[:, quantity, column] = np.bincount(index, weights=weights, minlength=len(steps))
        most = np.zeros(len(steps), dtype=np.int64)
        np.maximum.at(most, index, lengths)
        times = np.bincount(index[lengths == most[index]], minlength=len(steps))
        for step, row, length, count in zip(steps.tolist(), sums, most.tolist(), times.tolist(), strict=True):
            self.steps[step] = self.steps.get(step, 0) + row
            before = self.longest.get(step, (0, 0))
            if length >= before[0]:
                self.longest[step] = (length, count + (before[1] if length == before[0] else 0))

    def change(self, quantity: int) -> Change | None:
        """Of one quantity; None where there are too few steps or responses, or it is not logged."""
        steps = [self.steps[step][quantity] for step in sorted(self.steps)]
        steps = [row for row in steps if row[0]]
        if len(steps) < FEWEST_STEPS:
            return None
        quarter = len(steps) // 4
        (first, one), (last, two) = (_mean(np.stack(part)) for part in (steps[:quarter], steps[-quarter:]))
        if math.isnan(first) or math.isnan(last):
            return None
        spread = math.hypot(one, two)
        return Change(first, last, (last - first) / spread if spread else math.copysign(math.inf, last - first))

    def at_limit(self) -> tuple[int, float, float]:
        """The longest response's length, and the share of the responses that have it in the first and last quarter."""
        steps = sorted(self.steps)
        quarter = max(len(steps) // 4, 1)
        most = max(length for length, _ in self.longest.values())

        def share(part: list[int]) -> float:
            count = sum(self.longest[step][1] for step in part if self.longest[step][0] == most)
            return count / sum(self.steps[step][LENGTH][0] for step in part)

        return most, share(steps[:quarter]), share(steps[-quarter:])

    def found(self) -> Iterator[Finding]:
        """A warning if responses degenerate; a note if only their entropy falls, as it does in a run that learns."""
        if len(self.steps) < FEWEST_STEPS:
            return
        signs = [*self._length(), *self._repetition()]
        entropy = self.change(ENTROPY)
        source = "" if self.has_entropy else ", estimated by the mean of −log μ"
        if entropy is not None and entropy.apart > APART and entropy.last > max(RISES * entropy.first, RISES_TO):
            signs.append(f"the entropy rose from {entropy.first:.2g} to {entropy.last:.2g} nats a token{source}")
        fell = entropy is not None and -entropy.apart > APART and entropy.last < FALLS * entropy.first
        if entropy is not None and fell and entropy.first >= FALLS_FROM:
            falls = f"the entropy fell from {entropy.first:.2g} to {entropy.last:.2g} nats a token{source}"
            if not signs:
                yield _entropy_note(falls, entropy)
                return
            signs.append(falls)
        if signs:
            yield _collapse(signs)

    def _length(self) -> Iterator[str]:
        length = self.change(LENGTH)
        if length is None:
            return
        if -length.apart > APART and length.last < SHRINKS * length.first:
            yield f"responses shrank from {length.first:.3g} to {length.last:.3g} tokens"
        most, before, after = self.at_limit()
        if length.apart > APART and after >= AT_LIMIT and before <= AT_LIMIT_BEFORE:
            yield f"{after:.0%} of the responses have the largest length, {most:,} tokens, and {before:.0%} at first"

    def _repetition(self) -> Iterator[str]:
        repeated = self.change(REPETITION)
        if repeated is None or repeated.apart <= APART:
            return
        if repeated.last >= REPEATED and repeated.last - repeated.first >= REPEATS_MORE:
            yield (
                f"{repeated.last:.0%} of the pieces of {PIECE} tokens repeat an earlier one of the response, and "
                f"{repeated.first:.0%} at first"
            )


def repeated_share(ids: Integers | None, sequences: Integers, starts: Integers, lengths: Integers) -> np.ndarray:
    """``[S]`` the share of each response's pieces of PIECE tokens that it had before; NaN without any."""
    missing = np.full(len(starts), np.nan)
    if ids is None or len(ids) < PIECE:
        return missing
    whole = sequences[PIECE - 1 :] == sequences[: len(ids) - PIECE + 1]
    piece = np.zeros(len(whole), dtype=np.uint64)
    for offset in range(PIECE):
        piece = (piece ^ ids[offset : offset + len(whole)].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        piece ^= piece >> np.uint64(29)
    order = np.repeat(np.arange(len(starts)), lengths)[: len(whole)].astype(np.uint64)
    # The response in the upper bits: equal pieces of one response stand together once sorted.
    keys = np.sort(((order << np.uint64(40)) | (piece >> np.uint64(24)))[whole])
    again = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(40)
    counts = np.bincount(again.astype(np.int64), minlength=len(starts))
    pieces = lengths - PIECE + 1
    return np.divide(counts, pieces, out=missing, where=pieces >= PIECE)


def _mean(steps: np.ndarray) -> tuple[float, float]:
    """The mean over the responses of ``steps`` ``[K, 3]``, and its standard error; NaN for too few responses."""
    n, total, squares = steps.sum(0)
    if n < FEWEST:
        return math.nan, math.nan
    mean = total / n
    over_responses = math.sqrt(max(squares / n - mean**2, 0.0) / n)
    means = steps[:, 1] / steps[:, 0]
    over_steps = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return mean, max(over_responses, over_steps)


def _collapse(signs: list[str]) -> Finding:
    return Finding(
        "collapse",
        "warning",
        f"The responses degenerate: {signs[0]}",
        f"From the first to the last quarter of the steps: {'; '.join(signs)}.",
        "Look at the responses of the last steps. Lower the learning rate or make fewer updates per rollout batch, "
        "continue from a checkpoint before the change, and check that the reward does not pay for it (length, format). "
        "Responses at the length limit: raise it (max_new_tokens; TRL: max_completion_length; verl: "
        "data.max_response_length), or penalize length.",
    )


def _entropy_note(falls: str, entropy: Change) -> Finding:
    return Finding(
        "entropy_fell",
        "note",
        f"The policy became more certain: entropy {entropy.first:.2g} → {entropy.last:.2g} nats a token",
        f"From the first to the last quarter of the steps {falls}. A policy that learns its task does this, and one "
        "that collapses, too: the log-probabilities alone do not tell them apart. Length and repetition did not change "
        "with it.",
        "Compare with the reward. If it stalls, lower the learning rate, raise the temperature of sampling, or raise "
        "the upper bound of the ratio (ratio_high; epsilon_high in TRL).",
    )
