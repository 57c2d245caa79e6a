"""How μ, r and |π − μ| are distributed, over all tokens, by bin of μ and by step."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from drpo.inspection.histograms import LOG_RATIO, PROBABILITY, SHIFT, Histogram, log10_or_floor
from drpo.inspection.measured import Measured
from drpo.inspection.result import MuBin, StepFigures

#: Upper ends of the bins of μ.
MU_ENDS = (1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)


class Distributions:
    """Counts of a log's tokens."""

    def __init__(self, delta: float):
        self.delta = delta
        self.mu = Histogram(PROBABILITY)
        self.ratio = Histogram(LOG_RATIO, len(MU_ENDS))
        self.shift = Histogram(SHIFT, len(MU_ENDS))
        self.diverging_shift = Histogram(SHIFT)
        self.beyond = np.zeros(len(MU_ENDS))
        self.largest_shift = 0.0
        self.same = self.near = self.zero_advantage = self.diverging = 0
        self.steps: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        rows = np.searchsorted(np.log(MU_ENDS[:-1]), part.tokens.behavior_logprobs, side="left").astype(np.int32)
        log_shift = log10_or_floor(part.distance)
        beyond = part.distance > self.delta
        self.mu.add(part.tokens.behavior_logprobs / math.log(10))
        self.ratio.add(part.log_ratio, rows)
        self.shift.add(log_shift, rows)
        self.diverging_shift.add(log_shift[part.diverging])
        self.beyond += np.bincount(rows, weights=beyond, minlength=len(MU_ENDS))
        self.largest_shift = max(self.largest_shift, float(part.distance.max(initial=0.0)))
        self.same += int((part.log_ratio == 0).sum())
        self.near += int((np.abs(part.log_ratio) <= NEAR).sum())
        self.zero_advantage += int((part.tokens.advantages == 0).sum())
        self.diverging += int(part.diverging.sum())
        if part.tokens.steps is not None:
            self._add_steps(part, beyond)

    def _add_steps(self, part: Measured, beyond: np.ndarray) -> None:
        steps, index = part.steps()
        sums = [
            np.bincount(index, weights=values, minlength=len(steps))
            for values in (None, part.distance, np.abs(part.log_ratio), beyond)
        ]
        for step, figures in zip(steps.tolist(), np.stack(sums, axis=1), strict=True):
            self.steps[step] += figures

    def mu_bins(self) -> list[MuBin]:
        """One entry a bin of μ, from the rarest."""
        totals = self.shift.counts.sum(1)
        bins = []
        for i, end in enumerate(MU_ENDS):
            r05, r50, r95 = (None if q is None else math.exp(q) for q in self.ratio.quantiles((0.05, 0.5, 0.95), i))
            d50, d95, d99 = (None if q is None else 10**q for q in self.shift.quantiles((0.5, 0.95, 0.99), i))
            beyond = float(self.beyond[i] / totals[i]) if totals[i] else None
            low = MU_ENDS[i - 1] if i else 0.0
            share = float(totals[i] / max(totals.sum(), 1))
            bins.append(MuBin(low, end, share, r05, r50, r95, d50, d95, d99, beyond))
        return bins

    def step_figures(self) -> list[StepFigures]:
        """One entry a step, in order."""
        return [
            StepFigures(step, int(n), shift / n, mismatch / n, beyond / n)
            for step, (n, shift, mismatch, beyond) in sorted(self.steps.items())
        ]


#: |log r| in nats up to which a ratio counts as 1.
NEAR = 1e-3
