"""What the runs say of each hypothesis, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from drpo.lab.metrics import METRICS
from drpo.lab.results import Row
from drpo.lab.statistics import (
    Difference,
    Estimate,
    holm,
    paired_difference,
    probability_of_improvement,
    variance_ratio,
)
from drpo.lab.study import Hypothesis, Study

#: Seeds that a comparison needs at least.
SEEDS = {"mean": 2, "variance": 3}
#: Held-out problems that an accuracy needs at least, and the metrics that are accuracies.
FEWEST_PROBLEMS = 3
ACCURACIES = frozenset({"final_accuracy", "area", "best_accuracy", "drawdown"})


@dataclass(frozen=True)
class Verdict:
    """A hypothesis in one setting, or over ``all`` of its settings together.

    ``found`` is ours − theirs, or Var(ours)/Var(theirs); ``adjusted_p`` its p-value after Holm over the study's
    hypotheses in this setting; ``improvement`` the probability that a run of ours is the better one. ``problem`` says
    why nothing can be found. ``answer``: better, worse, not shown, or not judged.
    """

    hypothesis: Hypothesis
    setting: str
    seeds: int
    metric: str
    found: Difference | None = None
    improvement: Estimate | None = None
    adjusted_p: float = math.nan
    answer: str = "not judged"
    remark: str = ""
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The verdict with its confidence interval, and the minimum detectable difference where none is shown."""
        ours, theirs, label = self.hypothesis.ours, self.hypothesis.theirs, METRICS[self.metric].label
        where = f"In {self.setting}, " if self.setting != "all" else "Over all settings, "
        if self.found is None:
            return f"{where}{ours} against {theirs}, {label}: not judged; {self.problem}."
        rate = {"best": ", each at its best"}.get(self.hypothesis.at, "")
        tail = f", adjusted p = {self.adjusted_p:.2g}, {self.seeds} seeds{rate})"
        tail += f". {self.remark}" if self.remark else "."
        found = self.found
        if self.hypothesis.compare == "variance":
            what = {"better": "varies less than", "worse": "varies more than"}.get(
                self.answer, "is not shown to vary differently from"
            )
            ratio = f"; minimum detectable ratio {found.detectable:.2g} or its inverse"
            power = ratio if self.answer == "not shown" else ""
            return (
                f"{where}{ours} {what} {theirs} in {label} (ratio of variances {found.value:.2g}, "
                f"95 % confidence interval {found.low:.2g} to {found.high:.2g}{power}{tail}"
            )
        what = {"better": "is better than", "worse": "is worse than"}.get(self.answer, "is not shown to differ from")
        power = f"; minimum detectable difference {found.detectable:.3f}" if self.answer == "not shown" else ""
        return (
            f"{where}{ours} {what} {theirs} in {label} (difference {signed(found.value)}, 95 % confidence interval "
            f"{signed(found.low)} to {signed(found.high)}{power}{tail}"
        )


def signed(difference: float) -> str:
    """A difference to three places with its sign; what rounds to nothing is +0.000."""
    return f"{round(difference, 3) + 0.0:+.3f}"


def judge(study: Study, rows: Sequence[Row]) -> list[Verdict]:
    """A verdict for each hypothesis in each of its settings, then over all of them together where there are several.

    A setting is an experiment of its own, and so are all of them together: Holm's correction is over the study's
    hypotheses in each.
    """
    verdicts = []
    for hypothesis in study.hypotheses:
        settings = hypothesis.settings or list(study.settings)
        verdicts += [_compare(study, hypothesis, setting, [setting], rows) for setting in settings]
        if len(settings) > 1 and hypothesis.compare == "mean":
            verdicts.append(_compare(study, hypothesis, "all", settings, rows))
    adjusted: dict[int, float] = {}
    for setting in {verdict.setting for verdict in verdicts}:
        family = [index for index, verdict in enumerate(verdicts) if verdict.setting == setting]
        found = [verdicts[index].found for index in family]
        adjusted |= zip(family, holm([one.p if one else math.nan for one in found]), strict=True)
    return [_answered(verdict, adjusted[index]) for index, verdict in enumerate(verdicts)]


def _answered(verdict: Verdict, adjusted: float) -> Verdict:
    if verdict.found is None:
        return verdict
    found = verdict.found
    if verdict.hypothesis.compare == "variance":  # less is better, and 1 is no difference
        found = replace(found, value=1 - found.value)
    elif not METRICS[verdict.metric].more_is_better:
        found = replace(found, value=-found.value)
    return replace(verdict, adjusted_p=adjusted, answer=found.verdict(adjusted))


def _compare(study: Study, hypothesis: Hypothesis, name: str, settings: list[str], rows: Sequence[Row]) -> Verdict:
    metric = hypothesis.metric or study.metric
    blank = Verdict(hypothesis, name, len(study.seeds), metric)
    arms = [
        [_scores(study, hypothesis, arm, setting, metric, rows) for setting in settings]
        for arm in (hypothesis.ours, hypothesis.theirs)
    ]
    missing = sum(len(study.seeds) - len(scores) for arm in arms for scores in arm)
    if missing:
        planned = 2 * len(settings) * len(study.seeds)
        return replace(blank, problem=f"{missing} of {planned} runs have not ended, or failed before an evaluation")
    if len(study.seeds) < (need := SEEDS[hypothesis.compare]):
        return replace(blank, problem=f"a comparison of {hypothesis.compare}s needs at least {need} seeds")
    problems = [
        row["heldout_problems"]
        for setting in settings
        for arm in (hypothesis.ours, hypothesis.theirs)
        for row in rows
        if _belongs(row, hypothesis, arm, setting) and row.get("heldout_problems")
    ]
    if metric in ACCURACIES and problems and min(problems) < FEWEST_PROBLEMS:
        return replace(
            blank,
            problem=f"accuracy was measured on {min(problems)} held-out "
            f"problem{'s' if min(problems) > 1 else ''}, and a comparison needs at least "
            f"{FEWEST_PROBLEMS}",
        )
    remark = _remark(hypothesis, settings, rows)
    ours, theirs = ([np.array(scores) for scores in arm] for arm in arms)
    found = None
    if hypothesis.compare == "variance":
        found = variance_ratio(ours[0], theirs[0])
        if math.isnan(found.p):
            return replace(blank, problem="an arm's seeds do not vary at all")
    if all(one == other for one, other in zip(*arms, strict=True)):
        return replace(
            blank,
            problem="both arms have the same value for every seed: they ran the same settings, or "
            "the measure is too coarse to tell them apart",
        )
    if found is not None:
        return replace(blank, found=found, remark=remark)
    sign = 1 if METRICS[metric].more_is_better else -1
    improvement = probability_of_improvement([sign * scores for scores in ours], [sign * scores for scores in theirs])
    return replace(blank, found=paired_difference(ours, theirs), improvement=improvement, remark=remark)


def _scores(
    study: Study, hypothesis: Hypothesis, arm: str, setting: str, metric: str, rows: Sequence[Row]
) -> list[float]:
    """By seed, in the study's order; fewer where runs are missing."""
    by_seed = {row["seed"]: row for row in rows if _belongs(row, hypothesis, arm, setting)}
    found = [by_seed.get(seed, {}) for seed in study.seeds]
    return [row[metric] for row in found if row.get("status") in ("finished", "failed") and row.get(metric) is not None]


def _belongs(row: Row, hypothesis: Hypothesis, arm: str, setting: str) -> bool:
    return (row["phase"], row["arm"], row["setting"]) == (hypothesis.at, arm, setting)


def _remark(hypothesis: Hypothesis, settings: list[str], rows: Sequence[Row]) -> str:
    broken = [
        f"{row['arm']} seed {row['seed']}"
        for setting in settings
        for arm in (hypothesis.ours, hypothesis.theirs)
        for row in rows
        if _belongs(row, hypothesis, arm, setting) and row["status"] == "failed"
    ]
    count = "1 run" if len(broken) == 1 else f"{len(broken)} runs"
    return f"{count} failed ({', '.join(broken)}); later evaluations count as accuracy 0." if broken else ""
