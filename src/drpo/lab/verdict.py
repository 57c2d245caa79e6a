"""A verdict on a hypothesis, and the sentence that states it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from drpo.lab.metrics import METRICS
from drpo.lab.statistics import ALPHA, Difference, Estimate, RandomEffects
from drpo.lab.study import Hypothesis

#: What a verdict may say; "not judged" where nothing can be found.
Answer = Literal["better", "worse", "equivalent", "undecided", "not judged"]


@dataclass(frozen=True)
class Verdict:
    """A hypothesis in one setting, or over ``all`` of its settings together.

    ``found`` is ours − theirs with its confidence interval, or Var(ours)/Var(theirs). After Holm's correction over the
    family, ``adjusted_p`` is the p-value of "no difference", ``adjusted_equivalence`` that of "a difference of the
    margin or more", and ``level`` what the uncorrected one had to be at most. ``detectable`` is the minimum detectable
    difference (or ratio) at that level. ``sign_flip`` assumes no distribution; ``improvement`` is the probability that
    a run of ours is the better one; ``across`` the effect over settings like these, in normalized scores. ``planned``
    is the number of seeds at the last look, ``seeds`` that at the present one. ``problem`` says why nothing is found.
    """

    hypothesis: Hypothesis
    setting: str
    seeds: int
    metric: str
    found: Difference | None = None
    detectable: Estimate | None = None
    improvement: Estimate | None = None
    across: RandomEffects | None = None
    adjusted_p: float = math.nan
    adjusted_equivalence: float = math.nan
    level: float = math.nan
    sign_flip: float = math.nan
    planned: int = 0
    answer: Answer = "not judged"
    remark: str = ""
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The verdict with its confidence interval, and the minimum detectable difference where it is undecided."""
        where = f"In {self.setting}, " if self.setting != "all" else "Over all settings, "
        ours, theirs, label = self.hypothesis.ours, self.hypothesis.theirs, METRICS[self.metric].label
        if self.found is None:
            return f"{where}{ours} against {theirs}, {label}: not judged; {self.problem}."
        variance = self.hypothesis.compare == "variance"
        said = (_variance_answer if variance else _mean_answer)(self, ours, theirs)
        facts = [*(_ratio(self) if variance else _difference(self)), *self._tests(), self._size(), *self._across()]
        return f"{where}{said} in {label} ({', '.join(facts)}).{' ' + self.remark if self.remark else ''}"

    def _tests(self) -> list[str]:
        """The p-values of the tests that were made."""
        parts = []
        if not math.isnan(self.adjusted_p):
            parts.append(f"adjusted p = {self.adjusted_p:.2g}")
        if not math.isnan(self.adjusted_equivalence):
            parts.append(f"for equivalence within ±{self.hypothesis.margin:g} {self.adjusted_equivalence:.2g}")
        if not math.isnan(self.sign_flip):
            parts.append(f"sign-flip p = {self.sign_flip:.2g}")
        return parts

    def _size(self) -> str:
        seeds = f"{self.seeds} seeds" if self.seeds == self.planned else f"{self.seeds} of {self.planned} seeds"
        return f"{seeds}, each at its best" if self.hypothesis.at == "best" else seeds

    def _across(self) -> list[str]:
        if self.across is None:
            return []
        found = self.across
        return [
            f"over settings like these {found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f}) of a setting's range"
        ]


def _mean_answer(verdict: Verdict, ours: str, theirs: str) -> str:
    margin = verdict.hypothesis.margin
    if verdict.answer in ("better", "worse"):
        small = f", by less than {margin:g}," if verdict.adjusted_equivalence <= ALPHA else ""
        return f"{ours} is {verdict.answer} than {theirs}{small}"
    if verdict.answer == "equivalent":
        return f"{ours} and {theirs} are equivalent within ±{margin:g}"
    return f"it is undecided whether {ours} is better or worse than {theirs}"


def _variance_answer(verdict: Verdict, ours: str, theirs: str) -> str:
    if verdict.answer == "undecided":
        return f"it is undecided whether {ours} varies less or more than {theirs}"
    return f"{ours} varies {'less' if verdict.answer == 'better' else 'more'} than {theirs}"


def _difference(verdict: Verdict) -> list[str]:
    found, power = verdict.found, verdict.detectable
    assert found is not None
    parts = [
        f"difference {signed(found.value)}",
        f"95 % confidence interval {signed(found.low)} to {signed(found.high)}",
    ]
    if verdict.answer == "undecided" and power is not None:
        parts.append(f"minimum detectable difference {power.value:.3f} ({power.low:.3f} to {power.high:.3f})")
    return parts


def _ratio(verdict: Verdict) -> list[str]:
    found, power = verdict.found, verdict.detectable
    assert found is not None
    parts = [f"ratio of variances {found.value:.2g}", f"95 % confidence interval {found.low:.2g} to {found.high:.2g}"]
    if verdict.answer == "undecided" and power is not None:
        parts.append(f"minimum detectable ratio {power.value:.2g} or its inverse")
    return parts


def signed(difference: float) -> str:
    """A difference to three places with its sign; what rounds to nothing is +0.000."""
    return f"{round(difference, 3) + 0.0:+.3f}"
