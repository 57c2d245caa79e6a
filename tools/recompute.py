"""Compute the verdicts of the kept studies again, with numpy and scipy alone, and name every figure that differs.

    python -m tools.recompute                      # every study below results/
    python -m tools.recompute results/delta

Nothing of the package is imported: what is read is results.csv, study.yaml, and verdicts.json to compare with.
Student's interval and test, the sign flips, equivalence, the ratio of variances, the spending of the level over looks
and Holm's correction are written down here a second time, from their definitions, so that a fault of the lab's
statistics shows. The studies of a family are read from the directories beside the first one's; comparisons of those
that are not there count as not shown.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from scipy import optimize, stats

ROOT = Path(__file__).parent.parent
ALPHA = 0.05
#: Largest relative difference that is rounding. Beyond 16 pairs the lab draws its sign flips, and so does scipy: their
#: p-values are compared to a few standard errors of 99,999 draws.
CLOSE, DRAWN = 1e-9, 5e-3
#: With looks, the lab reads the levels off a table between whose rows it interpolates: by how much of a p-value below
#: one half, and of a larger one, the two may differ; and an end of an interval by how much of the standard error.
LOOKED, LOOKED_LARGE = 2e-3, 3e-2
#: Metrics of which less is better, those that need held-out problems, and how many.
LESS_IS_BETTER = ("drawdown", "shift", "shift_p99")
ACCURACIES, FEWEST_PROBLEMS = ("final_accuracy", "area", "best_accuracy", "drawdown"), 3
#: Points and weights of an integral over [-1, 1].
NODES, WEIGHTS = np.polynomial.legendre.leggauss(160)

Pairs = list[tuple[np.ndarray, np.ndarray]]


class Family:
    """The comparisons of a study that share Holm's correction."""

    def __init__(self) -> None:
        self.tests: list[tuple[int, str, float, object]] = []

    def add(self, place: int, test: str, p: float, same: object) -> None:
        """A p-value of the verdict at ``place``; ``same`` is equal for comparisons of the same runs."""
        self.tests.append((place, test, p, same))

    def adjusted(self) -> dict[tuple[int, str], float]:
        """Holm's step-down: the k-th smallest p-value times the comparisons that have a test left, never falling."""
        found, largest = {}, 0.0
        left = list(self.tests)
        for place, test, p, same in sorted(self.tests, key=lambda one: (math.isnan(one[2]), one[2])):
            if math.isnan(p):
                found[place, test] = math.nan
                continue
            largest = max(largest, min(1.0, p * len({other[3] for other in left})))
            found[place, test] = largest
            left.remove((place, test, p, same))
        return found


def differences(pairs: Pairs) -> dict[str, float]:
    """Student's test on the differences by seed; strata count alike, with Satterthwaite's degrees of freedom. Empty
    where no difference varies."""
    parts = [ours - theirs for ours, theirs in pairs]
    value = float(np.mean([part.mean() for part in parts]))
    shares = np.array([part.var(ddof=1) / len(part) / len(parts) ** 2 for part in parts])
    error = math.sqrt(shares.sum())
    if error <= 1e-12 * max(1.0, *(float(np.abs(part).max()) for part in parts)):
        return {}
    freedom = shares.sum() ** 2 / sum(share**2 / (len(part) - 1) for share, part in zip(shares, parts, strict=True))
    reach = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    figures = {"value": value, "low": value - reach, "high": value + reach, "p": p, "error": error}
    return {**figures, "freedom": float(freedom)}


def spent(alpha: float, share: float) -> float:
    """The part of the one-sided level that O'Brien's and Fleming's function spends up to a share of the seeds."""
    return float(2 * stats.norm.sf(stats.norm.isf(alpha / 2) / math.sqrt(share)))


def root(of: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one number crosses 0."""
    return cast(float, optimize.brentq(of, low, high, xtol=1e-12))


def nominal(shares: Sequence[float], alpha: float) -> list[float]:
    """The one-sided level at each look: the mean of the first seeds, times the root of their number, is a Brownian
    motion W at the times ``shares``. A look may reject with the probability that is spent there, among the motions that
    no look before has rejected."""
    times, densities, weights = np.zeros(1), np.ones(1), np.ones(1)
    levels, before, used = list[float](), 0.0, 0.0
    for share in shares:
        quota, step = spent(alpha, share) - used, math.sqrt(share - before)

        def above(z: float) -> float:
            beyond = stats.norm.sf((z * math.sqrt(share) - times) / step)  # noqa: B023 - called in this turn alone
            return float((weights * densities * beyond).sum())  # noqa: B023

        bound = root(lambda z: math.log(max(above(z), 1e-300) / quota), -7.9, 35.0)  # noqa: B023
        levels.append(float(stats.norm.sf(bound)))
        low, high = -8.5 * math.sqrt(share), min(bound, 8.5) * math.sqrt(share)
        here = (high - low) / 2 * NODES + (high + low) / 2
        arrived = (weights * densities * stats.norm.pdf((here[:, None] - times) / step) / step).sum(1)
        times, densities, weights = here, arrived, (high - low) / 2 * WEIGHTS
        before, used = share, used + quota
    return levels


def over_looks(p_values: Sequence[float], shares: Sequence[float]) -> float:
    """The smallest one-sided level at which one of the looks so far rejects."""
    if len(shares) == 1:
        return p_values[0]
    found = [1.0]
    for look, p in enumerate(p_values):

        def excess(log_alpha: float, look: int = look, p: float = p) -> float:
            return math.log(nominal(shares, math.exp(log_alpha))[look]) - math.log(max(p, 1e-300))

        least, most = math.log(1e-12), math.log(0.98)
        if excess(most) > 0:
            found.append(math.exp(root(excess, least, most)) if excess(least) < 0 else 1e-12)
    return min(found)


def sign_flip(pairs: Pairs) -> float:
    """The share of sign patterns whose mean difference is as large as the one found."""
    parts = [ours - theirs for ours, theirs in pairs]
    weighted = np.concatenate([part / len(part) for part in parts])
    found = abs(weighted.sum())
    if len(weighted) <= 16:
        sums = [abs(float(np.dot(signs, weighted))) for signs in itertools.product((1, -1), repeat=len(weighted))]
        return float(np.mean([one >= found * (1 - 1e-9) for one in sums]))
    drawn = stats.permutation_test(
        (weighted,), np.sum, permutation_type="samples", n_resamples=99_999, alternative="two-sided", rng=1
    )
    return float(drawn.pvalue)


def variances(pairs: Pairs) -> dict[str, float]:
    """Var(ours) / Var(theirs), and the test of Pitman and Morgan: sum and difference are then uncorrelated."""
    ((ours, theirs),) = pairs
    value = float(ours.var(ddof=1) / theirs.var(ddof=1))
    r, freedom = float(np.corrcoef(ours + theirs, ours - theirs)[0, 1]), len(ours) - 2
    return {"value": value, "p": 2 * float(stats.t.sf(abs(r) * math.sqrt(freedom / (1 - r * r)), freedom))}


@dataclass(frozen=True)
class Claim:
    """A hypothesis in a setting, or over all of its settings; defaults are those of a study file."""

    values: Mapping[str, Any]
    setting: str
    settings: Sequence[str]
    metric: str

    def of(self, key: str, default: Any = None) -> Any:
        """What the file says."""
        value = self.values.get(key)
        return default if value is None else value

    @property
    def title(self) -> str:
        """What it is about."""
        return f"{self.values['claim']} ({self.setting})"

    @property
    def tests(self) -> list[str]:
        """What is tested."""
        if self.of("test"):
            return [self.of("test")]
        return ["difference", "equivalence"] if self.of("margin") else ["difference"]


@dataclass
class Made:
    """A claim with the scores of its arms at the latest whole look, and what they come to; empty where they come to
    nothing."""

    claim: Claim
    seeds: int
    shares: Sequence[float] = (1.0,)
    pairs: Pairs = field(default_factory=list)
    found: dict[str, float] = field(default_factory=dict)
    p_values: dict[str, float] = field(default_factory=dict)

    @property
    def same(self) -> object:
        """Equal for two comparisons of the same runs."""
        if not self.pairs:
            return id(self)
        runs = sorted(tuple(map(float, side)) for pair in self.pairs for side in pair)
        return (self.claim.metric, self.claim.of("compare", "mean"), tuple(runs))


class Kept:
    """A study's files below results/."""

    def __init__(self, folder: Path) -> None:
        self.study = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
        with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))

    def claims(self) -> Iterator[Claim]:
        """Every claim in each of its settings, then over all of them where there are several."""
        for values in self.study.get("hypotheses") or []:
            settings = values.get("settings") or list(self.study["settings"])
            metric = values.get("metric") or self.study.get("metric") or "final_accuracy"
            for setting in settings:
                yield Claim(values, setting, [setting], metric)
            if len(settings) > 1 and values.get("compare", "mean") == "mean":
                yield Claim(values, "all", settings, metric)

    def looks(self, claim: Claim) -> list[int]:
        """The numbers of seeds at which a claim is judged."""
        seeds, arms = self.study["seeds"], self.study["arms"]
        most = min((arms[claim.values[side]] or {}).get("seeds") or len(seeds) for side in ("ours", "theirs"))
        early = [] if claim.of("compare") == "variance" else self.study.get("looks") or []
        return [*(look for look in early if look < most), most]

    def compare(self, claim: Claim) -> Made:
        """What the rows say of a claim before any correction."""
        looks = self.looks(claim)
        whole = [size for size in looks if all(self.pair(claim, one, size) for one in claim.settings)]
        if not whole:
            return Made(claim, looks[-1], p_values=dict.fromkeys(claim.tests, math.nan))
        made = Made(claim, whole[-1], [size / looks[-1] for size in looks])
        made.p_values = dict.fromkeys(claim.tests, math.nan)
        if made.seeds < 2 or self.too_few_problems(claim):
            return made
        by_look = [[pair for one in claim.settings if (pair := self.pair(claim, one, size))] for size in whole]
        made.pairs = by_look[-1]
        if all(bool((ours == theirs).all()) for ours, theirs in made.pairs):
            return made
        if claim.of("compare") == "variance":
            made.found = variances(made.pairs)
            made.p_values = {"difference": made.found["p"]}
            return made
        found = [differences(pairs) for pairs in by_look]
        made.found = found[-1]
        if made.found:
            made.p_values = tests(claim, found, made.shares)
            reach = stats.t.isf(nominal(made.shares, ALPHA / 2)[len(found) - 1], made.found["freedom"])
            ends = {"low": -float(reach), "high": float(reach)}
            made.found |= {end: made.found["value"] + sign * made.found["error"] for end, sign in ends.items()}
        return made

    def pair(self, claim: Claim, setting: str, size: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The scores of both arms with the first seeds; None if one is missing."""
        ours, theirs = (self.scores(claim, setting, claim.values[side]) for side in ("ours", "theirs"))
        seeds = self.study["seeds"][:size]
        if not all(seed in side for side in (ours, theirs) for seed in seeds):
            return None
        return np.array([ours[seed] for seed in seeds]), np.array([theirs[seed] for seed in seeds])

    def scores(self, claim: Claim, setting: str, arm: str) -> dict[int, float]:
        """Seed → the metric of an arm's run."""
        place = (claim.of("at", "shared"), setting, arm)
        return {
            int(row["seed"]): float(row[claim.metric])
            for row in self.rows
            if (row["phase"], row["setting"], row["arm"]) == place
            and row["status"] in ("finished", "failed")
            and row.get(claim.metric)
        }

    def too_few_problems(self, claim: Claim) -> bool:
        """Whether an accuracy was measured on hardly any problem."""
        arms = [claim.values[side] for side in ("ours", "theirs")]
        counts = [
            float(row["heldout_problems"])
            for row in self.rows
            if row["phase"] == claim.of("at", "shared") and row["setting"] in claim.settings and row["arm"] in arms
            if row.get("heldout_problems")
        ]
        return claim.metric in ACCURACIES and bool(counts) and min(counts) < FEWEST_PROBLEMS


def recompute(folder: Path) -> list[str]:
    """A line for each figure of verdicts.json that comes out otherwise."""
    own = Kept(folder)
    beside = [name for name in own.study.get("family") or {} if (folder.parent / name / "results.csv").is_file()]
    members = [own, *(Kept(folder.parent / name) for name in beside)]
    made = [[member.compare(claim) for claim in member.claims()] for member in members]
    elsewhere = {
        name: count
        for member in members
        for name, count in (member.study.get("family") or {}).items()
        if name not in (folder.name, *beside)
    }
    adjusted = corrected([one for of_member in made for one in of_member], sum(elsewhere.values()))
    verdicts = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))["verdicts"]
    told = [f"{verdict['hypothesis']['claim']} ({verdict['setting']})" for verdict in verdicts]
    if told != (mine := [one.claim.title for one in made[0]]):
        return [f"verdicts.json is about {told}, the study about {mine}"]
    lines = list[str]()
    for one, verdict in zip(made[0], verdicts, strict=True):
        lines += compared(one, verdict, adjusted[id(one)])
    return lines


def corrected(made: Sequence[Made], elsewhere: int) -> dict[int, dict[str, float]]:
    """The p-values after Holm's correction over all of these, secondary claims apart: id → test → p."""
    found: dict[int, dict[str, float]] = {id(one): {} for one in made}
    for secondary in (False, True):
        family = Family()
        members = [one for one in made if one.claim.of("secondary", False) == secondary]
        for place, one in enumerate(members):
            for test, p in one.p_values.items():
                family.add(place, test, p, one.same)
        for more in range(0 if secondary else elsewhere):
            family.add(-1 - more, "difference", math.nan, ("elsewhere", more))
        for (place, test), p in family.adjusted().items():
            if place >= 0:
                found[id(members[place])][test] = p
    return found


def compared(one: Made, verdict: dict[str, Any], adjusted: dict[str, float]) -> list[str]:
    """A line for each figure of a verdict that is not the one found here."""
    if bool(one.found) != (verdict["found"] is not None):
        return [f"{one.claim.title}: judged there or here, and not on the other side: {verdict['problem']}"]
    if not one.found:
        return []
    looked = len(one.shares) > 1
    lines = list(different(one, {"seeds": float(one.seeds)}, verdict, CLOSE))
    ends = {key: value for key, value in one.found.items() if key in ("low", "high")}
    lines += different(one, {key: one.found[key] for key in one.found if key not in ends}, verdict["found"], CLOSE)
    # An end of the interval lies at a distance from the value that the level decides.
    reach = LOOKED * one.found["error"] if looked else CLOSE
    lines += different(one, ends, verdict["found"], reach)
    if one.claim.of("compare", "mean") == "mean":
        close = CLOSE if sum(len(ours) for ours, _ in one.pairs) <= 16 else DRAWN
        lines += different(one, {"sign_flip": sign_flip(one.pairs)}, verdict, close)
    for test, p in adjusted.items():
        key = "adjusted_equivalence" if test == "equivalence" else "adjusted_p"
        lines += different(one, {key: p}, verdict, p * (LOOKED if p < 0.5 else LOOKED_LARGE) if looked else CLOSE)
    said = answer(one, adjusted)
    if said != verdict["answer"]:
        lines.append(f"{one.claim.title}: {verdict['answer']} there, {said} here")
    return lines


def tests(claim: Claim, looks: Sequence[dict[str, float]], shares: Sequence[float]) -> dict[str, float]:
    """The p-values that a claim asks for, over the looks so far, before any correction."""

    def beyond(side: int, bound: float) -> float:
        """That the true difference is not beyond ``bound`` on that side."""
        p_values = [stats.t.sf(side * (one["value"] - bound) / one["error"], one["freedom"]) for one in looks]
        return over_looks([float(p) for p in p_values], shares)

    made = {}
    if "difference" in claim.tests:
        better = -1 if claim.metric in LESS_IS_BETTER else 1
        both = min(1.0, 2 * min(beyond(1, 0.0), beyond(-1, 0.0)))
        made["difference"] = beyond(better, 0.0) if claim.of("one_sided") else both
    if "equivalence" in claim.tests:
        made["equivalence"] = max(beyond(1, -claim.of("margin")), beyond(-1, claim.of("margin")))
    return made


def answer(one: Made, adjusted: Mapping[str, float]) -> str:
    """The word that a verdict has."""
    claim, value, told = one.claim, one.found["value"], "undecided"
    if adjusted.get("difference", 1.0) <= ALPHA:
        if claim.of("compare") == "variance":
            told = "better" if value < 1 else "worse"
        else:
            told = "better" if (value > 0) != (claim.metric in LESS_IS_BETTER) else "worse"
    elif adjusted.get("equivalence", 1.0) <= ALPHA:
        told = "equivalent"
    too_few = claim.setting != "all" and 2.0 ** (1 - one.seeds) > ALPHA
    return "undecided" if too_few else told


def different(one: Made, here: dict[str, float], there: dict[str, Any], close: float) -> Iterator[str]:
    """A line for each figure that is not the same on both sides; JSON has null for NaN."""
    for key, value in here.items():
        other = there.get(key, value)
        other = math.nan if other is None else other
        same = math.isnan(value) if math.isnan(other) else abs(value - other) <= close * max(1.0, abs(value))
        if not same:
            yield f"{one.claim.title}: {key} is {other} there, {value} here"


def main() -> None:
    """Say what differs; exit with 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(file.parent for file in (ROOT / "results").glob("*/verdicts.json"))
    parser.add_argument("folders", nargs="*", type=Path, default=known, help="of studies that were kept")
    wrong = 0
    for folder in parser.parse_args().folders:
        count = len(json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))["verdicts"])
        lines = recompute(folder)
        wrong += len(lines)
        print(f"{folder.name}: {count} verdicts, {len(lines)} figures differ", *lines, sep="\n  ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
