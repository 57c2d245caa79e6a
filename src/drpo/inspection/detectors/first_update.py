"""The mismatch at update 0, where π has the weights that sampled: the engine's numerics, or weights that are older.

Only tokens with μ between 0.05 and 0.95 are compared over steps: |log r| of decided tokens is near 0 whatever the
engine does, and how many there are changes in training. Numerics stay of one size over a run. Where some steps have
many times the mismatch of others, μ of the former is of older weights: rollouts that lag behind, a weight transfer that
failed, an adapter that was not loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from drpo.inspection.measured import Measured
from drpo.inspection.result import Finding
from drpo.mismatch.start_check import EXPLAINED

#: log μ of the tokens that are compared (nats).
LOW, HIGH = np.log(0.05), np.log(0.95)
#: Fewest such tokens of a block of steps, most blocks, and fewest.
FEWEST_IN_BLOCK, MOST_BLOCKS, FEWEST_BLOCKS = 100, 12, 3
#: A block with this many times the mismatch of the lowest, and with this many nats, is of older weights.
TIMES, LEAST = 8.0, 0.005
#: Mean |log r| over all tokens (nats) below which the two sides are in float32.
FLOAT32 = EXPLAINED["fp32"]
#: Fewest tokens for a statement on the size.
FEWEST = 200
#: Measured means over all tokens (docs/mismatch.md): source → least and most, in nats.
KNOWN = {
    "bfloat16 on one side or both": (7e-4, 4e-3),
    "fp8 on one side or both": (2e-3, 7e-3),
    "one optimizer update": (8e-3, 8e-3),
    "rollouts one to four steps old": (1e-2, 3e-2),
}
#: A size within this factor of a known one is like it.
LIKE = 2.0


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive steps: first and last, tokens that are compared, and their mean |log r|."""

    first: int
    last: int
    tokens: int
    mismatch: float

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


class FirstUpdate:
    """Sums over tokens of update 0."""

    def __init__(self) -> None:
        self.tokens, self.mismatch = 0, 0.0
        #: Step → tokens that are compared, and Σ |log r| over them.
        self.steps: dict[int, np.ndarray] = {}

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        updates = part.tokens.updates
        if updates is None:
            return
        first = updates == 0
        apart = np.abs(part.log_ratio)
        self.tokens += int(first.sum())
        self.mismatch += float(apart[first].sum(dtype=np.float64))
        if part.tokens.steps is None:
            return
        mu = part.tokens.behavior_logprobs
        compared = first & (mu > LOW) & (mu < HIGH)
        steps, index = part.steps()
        counts = np.bincount(index[compared], minlength=len(steps))
        sums = np.bincount(index[compared], weights=apart[compared], minlength=len(steps))
        for step, row in zip(steps.tolist(), np.stack((counts, sums), axis=1), strict=True):
            self.steps[step] = self.steps.get(step, 0) + row

    def found(self) -> Iterator[Finding]:
        """A warning if μ is of older weights, else a note on the size of the mismatch if it is more than float32's."""
        if self.tokens < FEWEST:
            return
        mean = self.mismatch / self.tokens
        blocks = self._blocks()
        if len(blocks) >= FEWEST_BLOCKS:
            lowest = min(blocks, key=lambda block: block.mismatch)
            older = [block for block in blocks if block.mismatch > max(TIMES * lowest.mismatch, LEAST)]
            if older:
                yield self._stale(lowest, older)
                return
        if mean > EXPLAINED["fp8"]:
            yield _unexplained(mean)
        elif mean > FLOAT32:
            yield _numerics(mean)

    def _stale(self, lowest: _Block, older: list[_Block]) -> Finding:
        worst = max(older, key=lambda block: block.mismatch)
        named = ", ".join(str(block) for block in older[:6]) + (", …" if len(older) > 6 else "")
        return Finding(
            "stale",
            "warning",
            "μ is of older weights: π and μ differ before the first update of a step",
            f"At update 0 π has the weights that sampled, so that only numerics differ. Among tokens with μ between "
            f"0.05 and 0.95 the mean |log r| at update 0 is {lowest.mismatch:.2g} nats in steps {lowest}, but "
            f"{worst.mismatch:.2g} in steps {worst}. Steps with more than {TIMES:g} times the lowest: {named}.",
            "If rollouts lag behind on purpose (rollout_lag, an asynchronous trainer), count the lag as staleness: "
            "sample fewer steps ahead if tokens leave the trust region. Otherwise the engine does not get the new "
            "weights: check the weight transfer after each step, and that a LoRA adapter is loaded into the engine.",
        )

    def _blocks(self) -> list[_Block]:
        """Consecutive steps of about equal numbers of tokens, each enough to compare."""
        steps = sorted(self.steps.items())
        total = sum(row[0] for _, row in steps)
        size = max(FEWEST_IN_BLOCK, total / MOST_BLOCKS)
        blocks: list[_Block] = []
        first, count, mismatch = None, 0.0, 0.0
        for step, (n, found) in steps:
            first = step if first is None else first
            count, mismatch = count + n, mismatch + found
            if count >= size:
                blocks.append(_Block(first, step, int(count), mismatch / count))
                first, count, mismatch = None, 0.0, 0.0
        return blocks


def _unexplained(mean: float) -> Finding:
    return Finding(
        "stale",
        "warning",
        f"π and μ differ by {mean:.2g} nats before the first update: no precision explains that",
        f"At update 0 π has the weights that sampled. The mean |log π − log μ| there is {mean:.3g} nats; fp8 reaches "
        f"{EXPLAINED['fp8']:g} at most.",
        "Check that the engine has the trainer's current weights (weight transfer, LoRA adapter), and that both sides "
        "see the same tokens and prompts.",
    )


def _numerics(mean: float) -> Finding:
    like = [name for name, (low, high) in KNOWN.items() if low / LIKE <= mean <= high * LIKE]
    size = f"It is of the size of: {'; '.join(like)}" if like else "It is larger than that of any source measured there"
    return Finding(
        "engine_noise",
        "note",
        f"Before the first update, |log π − log μ| is {mean:.2g} nats on average",
        f"At update 0 π has the weights that sampled: this is the training–inference mismatch. {size} "
        "(docs/mismatch.md). The size alone does not tell them apart.",
        "Compute both sides in one precision, float32 for the log-softmax (rollout_precision; vLLM: dtype, "
        "quantization), to lower it. If rollouts are sampled ahead of time, it includes their staleness.",
    )
