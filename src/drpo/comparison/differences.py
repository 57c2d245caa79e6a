"""How far one configuration ended from another, with an interval over seeds or, with one run each, over problems."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from drpo.comparison.groups import Group
from drpo.comparison.result import FIGURES, RunDifference
from drpo.comparison.runs import ComparedRun
from drpo.intervals import difference_interval


def differences(groups: list[Group]) -> list[RunDifference]:
    """Every group but the first against the first, for each of FIGURES that both have."""
    found = [difference(figure, group, groups[0]) for figure in FIGURES for group in groups[1:]]
    return [one for one in found if one is not None]


def difference(figure: str, ours: Group, theirs: Group) -> RunDifference | None:
    """The difference in ``figure``; None where one side has no value.

    Finished runs alone count. With two or more seeds in both it is paired by seed, with Student's interval; with
    several runs on either side and fewer seeds in common there is no interval. One run each: of the accuracy,
    Newcombe's interval of the two evaluations.
    """
    score = _SCORES[figure]
    here, there = _by_seed(ours, score), _by_seed(theirs, score)
    if not here or not there:
        return None
    shared = [seed for seed in here if seed in there]
    if len(shared) >= 2:
        from drpo.lab.statistics import paired_difference  # needs scipy, which one run each does not

        pairs = [np.array([side[seed] for seed in shared]) for side in (here, there)]
        paired = paired_difference([pairs[0]], [pairs[1]])
        basis = f"paired by seed, {len(shared)} seeds"
        return RunDifference(figure, ours.label, theirs.label, paired.value, paired.low, paired.high, basis)
    value = sum(here.values()) / len(here) - sum(there.values()) / len(there)
    single = len(here) == len(there) == 1
    if figure == "accuracy" and single:
        one, other = ours.ended[0], theirs.ended[0]
        assert one.last is not None and other.last is not None
        estimates = [(found.value, found.low, found.high) for found in (other.last, one.last)]
        _, low, high = difference_interval(*estimates)
        return RunDifference(
            figure, ours.label, theirs.label, value, low, high, "one run each: other seeds may differ more"
        )
    basis = "one run each" if single else "fewer than two seeds in common"
    return RunDifference(figure, ours.label, theirs.label, value, None, None, f"{basis}: no interval")


def _by_seed(group: Group, score: Callable[[ComparedRun], float | None]) -> dict[int | None, float]:
    return {run.seed: value for run in group.ended if (value := score(run)) is not None}


_SCORES: dict[str, Callable[[ComparedRun], float | None]] = {
    "accuracy": lambda run: None if run.last is None else run.last.value,
    "reward": lambda run: run.late_reward,
}
