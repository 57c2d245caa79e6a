"""One hypothesis in one setting, or over several: the scores of its two arms, and what they say before any correction.

A study with looks is compared on the seeds of its latest whole look, and the p-values allow for the looks before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from drpo.lab import statistics as stats
from drpo.lab.metrics import ACCURACIES, METRICS
from drpo.lab.study import Hypothesis, Study
from drpo.lab.verdict import Verdict

Row = dict[str, Any]
#: Scores of a setting by arm, ``[S]`` each, seeds in the study's order.
Scores = Mapping[str, np.ndarray]

#: Seeds that a comparison needs at least.
SEEDS = {"mean": 2, "variance": 3}
#: Held-out problems that an accuracy needs at least.
FEWEST_PROBLEMS = 3


@dataclass(frozen=True)
class Comparison:
    """A verdict without its answer, and what the family's correction needs of it.

    ``p_values`` are those of the tests that the hypothesis makes, by test (:data:`drpo.lab.study.Test`); NaN for one
    that cannot be made. ``scores`` are those of every arm, one mapping a setting; ``shares`` of the seeds at each look,
    and ``look`` the present one.
    """

    verdict: Verdict
    p_values: Mapping[str, float]
    scores: Sequence[Scores] = ()
    shares: Sequence[float] = (1.0,)
    look: int = 0

    @property
    def same(self) -> object:
        """Equal for two comparisons of the same runs."""
        claim = self.verdict.hypothesis
        if not self.scores:
            return id(self)
        values = [tuple(one[arm]) for one in self.scores for arm in (claim.ours, claim.theirs)]
        return (self.verdict.metric, claim.compare, *sorted(values))


def compare(
    study: Study, hypothesis: Hypothesis, name: str, settings: Sequence[str], rows: Sequence[Row]
) -> Comparison:
    """What the rows say of a hypothesis in these settings together; ``name`` is what the verdict calls them."""
    metric, looks = hypothesis.metric or study.metric, study.looks_of(hypothesis)
    verdict = Verdict(hypothesis, name, looks[-1], metric, planned=looks[-1])
    empty = Comparison(verdict, dict.fromkeys(hypothesis.tests, math.nan))
    found = [_by_arm(hypothesis.at, setting, metric, rows) for setting in settings]
    look = max((look for look, size in enumerate(looks) if not _missing(study, hypothesis, found, size)), default=None)
    if look is None:
        missing, planned = _missing(study, hypothesis, found, looks[0]), 2 * len(settings) * looks[0]
        problem = f"{missing} of {planned} runs have not ended, or failed before an evaluation"
        return replace(empty, verdict=replace(verdict, problem=problem))
    verdict = replace(verdict, seeds=looks[look], remark=_failures(hypothesis, settings, rows))
    if problem := _unfit(hypothesis, metric, looks[look], settings, rows):
        return replace(empty, verdict=replace(verdict, problem=problem))
    scores = [_first(study, one, looks[look]) for one in found]
    made = replace(empty, verdict=verdict, scores=scores, shares=[size / looks[-1] for size in looks], look=look)
    if all(bool((one[hypothesis.ours] == one[hypothesis.theirs]).all()) for one in scores):
        problem = "both arms have the same value for every seed: they ran the same settings, or the measure is too "
        return replace(made, verdict=replace(verdict, problem=f"{problem}coarse to tell them apart"))
    return _variances(made) if hypothesis.compare == "variance" else _means(made, looks[: look + 1])


def _means(made: Comparison, sizes: Sequence[int]) -> Comparison:
    """Student's tests at each look so far, put together."""
    claim, verdict = made.verdict.hypothesis, made.verdict
    ours, theirs = ([one[arm] for one in made.scores] for arm in (claim.ours, claim.theirs))
    looks = [stats.paired_difference([x[:size] for x in ours], [x[:size] for x in theirs]) for size in sizes]
    found = looks[-1]
    if math.isnan(found.p):
        problem = f"every seed has the same difference, {found.value:.3g}, so that nothing is known of the spread"
        return replace(made, verdict=replace(verdict, problem=f"{problem} that a test needs"))
    more = METRICS[verdict.metric].more_is_better
    low, high = found.interval(2 * stats.nominal_level(made.shares, made.look, stats.ALPHA / 2))
    better, worse = (ours, theirs) if more else (theirs, ours)
    return replace(
        made,
        p_values=p_values(claim, looks, made.shares, more),
        verdict=replace(
            verdict,
            found=replace(found, low=low, high=high),
            sign_flip=stats.sign_flip(ours, theirs),
            improvement=stats.probability_of_improvement(better, worse),
            across=_across(claim, made.scores),
        ),
    )


def p_values(
    claim: Hypothesis, looks: Sequence[stats.MeanDifference], shares: Sequence[float], more: bool
) -> dict[str, float]:
    """The p-value of each of a claim's tests over the looks so far.

    Args:
        claim: the hypothesis.
        looks: the difference at each look so far.
        shares: of the seeds at each planned look.
        more: whether more is better.
    """
    return {test: _p_value(test, claim, looks, shares, more) for test in claim.tests}


def _p_value(
    test: str, claim: Hypothesis, looks: Sequence[stats.MeanDifference], shares: Sequence[float], more: bool
) -> float:
    margin = claim.margin or 0.0 if test == "equivalence" else 0.0
    below = stats.sequential_p([look.p_below(margin) for look in looks], shares)
    above = stats.sequential_p([look.p_above(-margin) for look in looks], shares)
    if test == "equivalence":
        return max(below, above)
    if claim.one_sided:
        return above if more else below
    return min(1.0, 2 * min(below, above))


def _variances(made: Comparison) -> Comparison:
    claim = made.verdict.hypothesis
    (scores,) = made.scores
    found = stats.variance_ratio(scores[claim.ours], scores[claim.theirs])
    if math.isnan(found.p):
        return replace(made, verdict=replace(made.verdict, problem="an arm's seeds do not vary at all"))
    return replace(made, p_values={"difference": found.p}, verdict=replace(made.verdict, found=found))


def detectable(made: Comparison, level: float) -> stats.Estimate | None:
    """The minimum detectable difference, or ratio of variances, at the level that the claim faces."""
    claim, found = made.verdict.hypothesis, made.verdict.found
    if found is None:
        return None
    pairs = [(one[claim.ours], one[claim.theirs]) for one in made.scores]
    if claim.compare == "variance":
        ((one, other),) = pairs
        ratio = stats.detectable_ratio(len(one), float(np.corrcoef(one, other)[0, 1]), level)
        return stats.Estimate(ratio, math.nan, math.nan)
    assert isinstance(found, stats.MeanDifference)
    alpha = 2 * stats.nominal_level(made.shares, made.look, level if claim.one_sided else level / 2)
    spreads = [
        stats.difference_spread(ours, theirs, list(one.values()))
        for one, (ours, theirs) in zip(made.scores, pairs, strict=True)
    ]
    return stats.detectable(spreads, [len(ours) for ours, _ in pairs], found.freedom, alpha)


def _across(claim: Hypothesis, scores: Sequence[Scores]) -> stats.RandomEffects | None:
    """The effect over settings like these, scores normalized by each setting's range; None where there is no such."""
    effects, errors = [], []
    for one in scores if len(scores) > 1 else ():
        low, high = stats.normal_range(np.concatenate(list(one.values())).tolist())
        found = stats.paired_difference([one[claim.ours]], [one[claim.theirs]])
        if high <= low or math.isnan(found.p):
            return None
        effects.append(found.value / (high - low))
        errors.append(found.error / (high - low))
    return stats.random_effects(effects, errors) if effects else None


def _by_arm(phase: str, setting: str, metric: str, rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """The scores of runs that ended: arm → seed → score."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        ended = row["status"] in ("finished", "failed") and row.get(metric) is not None
        if ended and (row["phase"], row["setting"]) == (phase, setting):
            found.setdefault(row["arm"], {})[row["seed"]] = row[metric]
    return found


def _missing(
    study: Study, claim: Hypothesis, by_setting: Sequence[Mapping[str, Mapping[int, float]]], size: int
) -> int:
    """How many of the runs of both arms with the first ``size`` seeds have no score."""
    arms = [one.get(arm, {}) for one in by_setting for arm in (claim.ours, claim.theirs)]
    return sum(seed not in scores for scores in arms for seed in study.seeds[:size])


def _first(study: Study, by_arm: Mapping[str, Mapping[int, float]], size: int) -> Scores:
    """Every arm that has the first ``size`` seeds."""
    seeds = study.seeds[:size]
    return {
        arm: np.array([scores[seed] for seed in seeds])
        for arm, scores in by_arm.items()
        if all(seed in scores for seed in seeds)
    }


def _unfit(claim: Hypothesis, metric: str, size: int, settings: Sequence[str], rows: Sequence[Row]) -> str:
    """Why these runs cannot be compared; empty if they can."""
    if size < (need := SEEDS[claim.compare]):
        return f"a comparison of {claim.compare}s needs at least {need} seeds"
    problems = [row["heldout_problems"] for row in _of(claim, settings, rows) if row.get("heldout_problems")]
    if metric in ACCURACIES and problems and min(problems) < FEWEST_PROBLEMS:
        return (
            f"accuracy was measured on {min(problems)} held-out problem{'s' if min(problems) > 1 else ''}, and a "
            f"comparison needs at least {FEWEST_PROBLEMS}"
        )
    return ""


def _failures(claim: Hypothesis, settings: Sequence[str], rows: Sequence[Row]) -> str:
    broken = [f"{row['arm']} seed {row['seed']}" for row in _of(claim, settings, rows) if row["status"] == "failed"]
    count = "1 run" if len(broken) == 1 else f"{len(broken)} runs"
    return f"{count} failed ({', '.join(broken)}); later evaluations count as accuracy 0." if broken else ""


def _of(claim: Hypothesis, settings: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """The runs of both arms, by setting and arm."""
    return [
        row
        for setting in settings
        for arm in (claim.ours, claim.theirs)
        for row in rows
        if (row["phase"], row["arm"], row["setting"]) == (claim.at, arm, setting)
    ]
