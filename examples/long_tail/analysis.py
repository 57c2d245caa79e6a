"""What the runs of a setting say: each arm's scores over the evaluation seeds, and the verdict on each hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drpo.errors import DataError
from drpo.lab import statistics as stats
from examples.long_tail.records import Run, seeds_of
from examples.long_tail.runner import tuned_scores
from examples.long_tail.study import HYPOTHESES, Cell, Plan, at_rate, chosen, shared_rate


@dataclass(frozen=True)
class Evaluated:
    """A setting's runs on the evaluation seeds: each arm at its own best cell, and at the shared rate.

    Args:
        tuned: cell → mean final value over the tuning seeds.
        rate: the shared learning rate.
        best, shared: arm → its cell.
        runs: cell → its runs, in the order of the seeds.
    """

    tuned: Mapping[Cell, float]
    rate: float
    best: Mapping[str, Cell]
    shared: Mapping[str, Cell]
    runs: Mapping[Cell, Sequence[Run]]

    def scores(self, cell: Cell, score: Callable[[Run], float] = lambda run: run.final) -> np.ndarray:
        """``[S]``, a number of each run of ``cell``."""
        return np.array([score(run) for run in self.runs[cell]])


@dataclass(frozen=True)
class Verdict:
    """A hypothesis in one setting: final values of ours minus theirs, paired by seed.

    Args:
        p: the difference's, after Holm's correction over all hypotheses and settings.
        improvement: probability that a run of ours beats a run of theirs.
        spread: variance over seeds, ours to theirs.
    """

    setting: str
    ours: str
    theirs: str
    difference: stats.Difference
    p: float
    improvement: stats.Estimate
    spread: stats.Difference

    @property
    def said(self) -> str:
        return self.difference.verdict(self.p)


def evaluate(runs: Sequence[Run], plan: Plan) -> Evaluated:
    """Put the runs of a setting in order.

    Raises:
        DataError: a run is missing.
    """
    tuned = tuned_scores(runs, plan)
    rate = shared_rate(tuned)
    best, shared = chosen(tuned), at_rate(tuned, rate)
    own = [run for run in runs if run.seed in plan.seeds]
    found = {cell: list(seeds_of(own, cell)) for cell in {*best.values(), *shared.values()}}
    for cell, of_cell in found.items():
        if tuple(run.seed for run in of_cell) != tuple(sorted(plan.seeds)):
            raise DataError(
                f"{cell} lacks runs: seeds {[run.seed for run in of_cell]} of {list(plan.seeds)}. Run the "
                "study to its end."
            )
    return Evaluated(tuned, rate, best, shared, found)


def verdicts(settings: Mapping[str, Evaluated], shared: bool = False) -> list[Verdict]:
    """Every hypothesis in every setting, at each arm's own best cell or at the shared rate."""
    pairs = [(name, found, *arms) for name, found in settings.items() for arms in HYPOTHESES]
    scores = []
    for _, found, ours, theirs in pairs:
        cells = found.shared if shared else found.best
        scores.append((found.scores(cells[ours]), found.scores(cells[theirs])))
    differences = [stats.paired_difference([one], [other]) for one, other in scores]
    adjusted = stats.holm([difference.p for difference in differences])
    return [
        Verdict(
            name,
            ours,
            theirs,
            difference,
            p,
            stats.probability_of_improvement([one], [other]),
            stats.variance_ratio(one, other),
        )
        for (name, _, ours, theirs), (one, other), difference, p in zip(
            pairs, scores, differences, adjusted, strict=True
        )
    ]
