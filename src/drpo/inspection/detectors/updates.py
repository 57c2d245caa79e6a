"""How π moves away from μ over the updates of a rollout batch: the policy that moved too far.

At update 0 π has the weights that sampled, so |log r| is the training–inference mismatch. From then on every update
moves π, and all later tokens of the batch are measured against the same μ.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from drpo.inspection.histograms import SHIFT, Counts, log10_or_floor, quantiles
from drpo.inspection.measured import Measured, distinct
from drpo.inspection.readers.tokens import Flags
from drpo.inspection.result import Finding, UpdateFigures

#: More different values of `update` than this are no updates within a batch.
MOST_UPDATES = 1000
#: Share of the tokens beyond δ in the later updates from which a warning is due; fewest such tokens; and the part of
#: all tokens beyond δ that the later updates then hold.
BEYOND, FEWEST_BEYOND, HELD = 0.02, 50, 0.6
#: Share beyond δ up to which an update counts as inside the trust region, for the advice.
INSIDE = 0.01


class Updates:
    """Sums by update: tokens, |π − μ|, |log r|, tokens beyond δ; and the distribution of |π − μ|."""

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self.sums: dict[int, np.ndarray] = {}
        self.shifts: dict[int, Counts] = {}
        self.is_usable = True

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        updates = part.tokens.updates
        if updates is None or not self.is_usable:
            return
        present, index = distinct(updates)
        if len(self.sums.keys() | set(present.tolist())) > MOST_UPDATES:
            self.is_usable = False
            self.sums.clear()
            self.shifts.clear()
            return
        columns = (None, part.distance, np.abs(part.log_ratio), part.distance > self.delta)
        sums = np.stack([np.bincount(index, weights=values, minlength=len(present)) for values in columns], axis=1)
        cells = index * SHIFT.bins + SHIFT.place(log10_or_floor(part.distance))
        counts = np.bincount(cells, minlength=len(present) * SHIFT.bins).reshape(len(present), SHIFT.bins)
        for update, row, shifts in zip(present.tolist(), sums, counts, strict=True):
            self.sums[update] = self.sums.get(update, 0) + row
            self.shifts[update] = self.shifts.get(update, 0) + shifts

    def figures(self) -> list[UpdateFigures]:
        """One entry an update, in order; empty where the log has none."""
        return [
            UpdateFigures(update, int(n), float(shift / n), float(mismatch / n), float(beyond / n))
            for update, (n, shift, mismatch, beyond) in sorted(self.sums.items())
        ]

    def pointed(self, part: Measured) -> Flags:
        """``[N]``: the tokens beyond δ in the later half of the updates."""
        late = [figures.update for figures in _halves(self.figures())[1]]
        updates = part.tokens.updates
        inside = np.zeros(len(part.tokens), dtype=np.bool_) if updates is None else np.isin(updates, late)
        return inside & (part.distance > self.delta)

    def drift(self) -> Iterator[Finding]:
        """A warning if the later updates hold most of the tokens beyond δ, and there are many of them."""
        figures = self.figures()
        if len(figures) < 2:
            return
        early, late = _halves(figures)
        beyond = [sum(f.tokens * f.beyond_delta for f in part) for part in (early, late)]
        shares = [count / sum(f.tokens for f in part) for count, part in zip(beyond, (early, late), strict=True)]
        held = beyond[1] / max(sum(beyond), 1)
        if shares[1] < BEYOND or beyond[1] < FEWEST_BEYOND or held < HELD:
            return
        inside = next((i for i, f in enumerate(figures) if f.beyond_delta > INSIDE), len(figures))
        tail = self._tail([f.update for f in late])
        yield Finding(
            "update_drift",
            "warning",
            f"The policy leaves the trust region within a rollout batch: {shares[1]:.1%} of the later tokens are "
            "beyond δ",
            f"Mean |π − μ| grows from {figures[0].shift:.2g} at update {figures[0].update} to {figures[-1].shift:.2g} "
            f"at update {figures[-1].update}. Beyond δ = {self.delta:g} are {shares[0]:.2%} of the tokens in updates "
            f"{_span(early)} and {shares[1]:.2%} in updates {_span(late)}, which hold {held:.0%} of all tokens beyond "
            f"δ. There the 99 % quantile of |π − μ| is {tail:.2g}, {tail / self.delta:.2g} δ.",
            f"Make fewer updates per rollout batch or lower the learning rate. At this rate update "
            f"{figures[min(inside, len(figures) - 1)].update} is the first with more than {INSIDE:.0%} beyond δ: try "
            f"{max(inside, 1)} update{'' if inside < 2 else 's'} a batch, or a third of the learning rate. Settings: "
            "updates_per_step, learning_rate (drpo train); steps_per_generation, num_iterations, learning_rate (TRL); "
            "ppo_epochs, ppo_mini_batch_size, optim.lr (verl).",
        )

    def _tail(self, updates: list[int]) -> float:
        counts = np.sum([self.shifts[update] for update in updates], axis=0)
        (tail,) = quantiles(counts, SHIFT, (0.99,))
        return 10 ** (SHIFT.low if tail is None else tail)


def _halves(figures: list[UpdateFigures]) -> tuple[list[UpdateFigures], list[UpdateFigures]]:
    """The earlier updates and the later ones; of an odd number, the middle one is early."""
    half = (len(figures) + 1) // 2
    return figures[:half], figures[half:]


def _span(figures: list[UpdateFigures]) -> str:
    first, last = figures[0].update, figures[-1].update
    return f"{first}" if first == last else f"{first} to {last}"
