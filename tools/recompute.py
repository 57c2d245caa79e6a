"""Compute the verdicts of the kept studies again, with numpy and scipy alone, and name every figure that differs.

    python -m tools.recompute                      # every study below results/
    python -m tools.recompute results/delta

Nothing of the package is imported: what is read is results.csv, study.yaml and the claims in verdicts.json. Student's
interval and test, the sign flips, equivalence, the ratio of variances and Holm's correction are written down here a
second time, from their definitions, so that a fault of the lab's statistics shows. Studies with looks and studies whose
family lies in several directories are judged as the lab does only at the end of all of them; until then they are
named and left out.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

ROOT = Path(__file__).parent.parent
ALPHA = 0.05
#: Largest relative difference that is rounding. Beyond 16 pairs the lab draws its sign flips, and so does scipy: their
#: p-values are compared to a few standard errors of 99,999 draws.
CLOSE, DRAWN = 1e-9, 5e-3
#: Metrics of which less is better.
LESS_IS_BETTER = ("drawdown", "shift", "shift_p99")

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
    """Student's test on the differences by seed; strata count alike, with Satterthwaite's degrees of freedom."""
    parts = [ours - theirs for ours, theirs in pairs]
    value = float(np.mean([part.mean() for part in parts]))
    shares = np.array([part.var(ddof=1) / len(part) / len(parts) ** 2 for part in parts])
    error = math.sqrt(shares.sum())
    freedom = shares.sum() ** 2 / sum(share**2 / (len(part) - 1) for share, part in zip(shares, parts, strict=True))
    reach = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    figures = {"value": value, "low": value - reach, "high": value + reach, "p": p, "error": error}
    return {**figures, "freedom": float(freedom)}


def equivalence(found: dict[str, float], margin: float) -> float:
    """The larger p-value of two one-sided tests."""
    below = stats.t.cdf((found["value"] - margin) / found["error"], found["freedom"])
    above = stats.t.sf((found["value"] + margin) / found["error"], found["freedom"])
    return float(max(below, above))


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


class Kept:
    """A study's files below results/."""

    def __init__(self, folder: Path) -> None:
        self.study = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
        with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.verdicts = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))["verdicts"]

    def pairs(self, verdict: dict[str, Any]) -> Pairs | None:
        """The scores of both arms, a pair of arrays a setting; None if a run is missing."""
        claim, setting = verdict["hypothesis"], verdict["setting"]
        settings = [setting] if setting != "all" else claim["settings"] or list(self.study["settings"])
        found = [tuple(self.scores(verdict, one, claim[side]) for side in ("ours", "theirs")) for one in settings]
        return None if any(len(one) == 0 for pair in found for one in pair) else found  # type: ignore[return-value]

    def scores(self, verdict: dict[str, Any], setting: str, arm: str) -> np.ndarray:
        """The metric of an arm's runs by seed, in the study's order; empty if one is missing."""
        metric, place = verdict["metric"], (verdict["hypothesis"]["at"], setting, arm)
        found = {
            int(row["seed"]): float(row[metric])
            for row in self.rows
            if (row["phase"], row["setting"], row["arm"]) == place
            and row["status"] in ("finished", "failed")
            and row[metric] != ""
        }
        seeds = self.study["seeds"]
        return np.array([found[seed] for seed in seeds] if all(seed in found for seed in seeds) else [])


def title(verdict: dict[str, Any]) -> str:
    """What a verdict is of."""
    return f"{verdict['hypothesis']['claim']} ({verdict['setting']})"


def recompute(folder: Path) -> list[str]:
    """A line for each figure of verdicts.json that comes out otherwise."""
    kept, lines = Kept(folder), list[str]()
    families = {True: Family(), False: Family()}
    found: dict[int, dict[str, float]] = {}
    for place, verdict in enumerate(kept.verdicts):
        pairs, claim = kept.pairs(verdict), verdict["hypothesis"]
        if (pairs is None) != (verdict["found"] is None):
            lines.append(f"{title(verdict)}: judged there or here, and not on the other side: {verdict['problem']}")
        if pairs is None or verdict["found"] is None:
            continue
        found[place] = variances(pairs) if claim["compare"] == "variance" else differences(pairs)
        lines += different(verdict, found[place], verdict["found"], CLOSE)
        if claim["compare"] == "mean":
            close = CLOSE if sum(len(ours) for ours, _ in pairs) <= 16 else DRAWN
            lines += different(verdict, {"sign_flip": sign_flip(pairs)}, verdict, close)
        runs = tuple(sorted(tuple(map(float, side)) for pair in pairs for side in pair))
        for test, p in tests(verdict, found[place]).items():
            families[claim["secondary"]].add(place, test, p, (verdict["metric"], claim["compare"], runs))
    adjusted = families[False].adjusted() | families[True].adjusted()
    for (place, test), p in adjusted.items():
        key = "adjusted_equivalence" if test == "equivalence" else "adjusted_p"
        lines += different(kept.verdicts[place], {key: p}, kept.verdicts[place], CLOSE)
    for place, mine in found.items():
        verdict = kept.verdicts[place]
        said = answer(verdict, mine, adjusted.get((place, "difference")), adjusted.get((place, "equivalence")))
        if said != verdict["answer"]:
            lines.append(f"{title(verdict)}: {verdict['answer']} there, {said} here")
    return lines


def tests(verdict: dict[str, Any], found: dict[str, float]) -> dict[str, float]:
    """The p-values that a claim asks for, before any correction."""
    claim = verdict["hypothesis"]
    made = {}
    if claim["test"] != "equivalence":
        made["difference"] = one_sided(found, verdict)
    if claim["compare"] == "mean" and claim["margin"] is not None and claim["test"] != "difference":
        made["equivalence"] = equivalence(found, claim["margin"])
    return made


def one_sided(found: dict[str, float], verdict: dict[str, Any]) -> float:
    """The p-value that the claim asks for."""
    if not verdict["hypothesis"]["one_sided"]:
        return found["p"]
    sign = -1 if verdict["metric"] in LESS_IS_BETTER else 1
    return float(stats.t.sf(sign * found["value"] / found["error"], found["freedom"]))


def answer(verdict: dict[str, Any], found: dict[str, float], p: float | None, equivalent: float | None) -> str:
    """The word that a verdict has."""
    seeds = verdict["seeds"]
    told = "undecided"
    if p is not None and p <= ALPHA:
        if verdict["hypothesis"]["compare"] == "variance":
            told = "better" if found["value"] < 1 else "worse"
        else:
            told = "better" if (found["value"] > 0) != (verdict["metric"] in LESS_IS_BETTER) else "worse"
    elif equivalent is not None and equivalent <= ALPHA:
        told = "equivalent"
    too_few = verdict["setting"] != "all" and 2.0 ** (1 - seeds) > ALPHA
    return "undecided" if too_few else told


def different(verdict: dict[str, Any], here: dict[str, float], there: dict[str, Any], close: float) -> Iterator[str]:
    """A line for each figure that is not the same on both sides; JSON has null for NaN."""
    for key, value in here.items():
        other = there.get(key, value)
        other = math.nan if other is None else other
        same = math.isnan(value) if math.isnan(other) else abs(value - other) <= close * max(1.0, abs(value))
        if not same:
            yield f"{title(verdict)}: {key} is {other} there, {value} here"


def main() -> None:
    """Say what differs; exit with 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(file.parent for file in (ROOT / "results").glob("*/verdicts.json"))
    parser.add_argument("folders", nargs="*", type=Path, default=known, help="of studies that were kept")
    wrong = 0
    for folder in parser.parse_args().folders:
        study = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
        if study.get("looks") or study.get("family"):
            print(f"{folder.name}: left out, it has looks or a family in several studies")
            continue
        count = len(json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))["verdicts"])
        lines = recompute(folder)
        wrong += len(lines)
        print(f"{folder.name}: {count} verdicts, {len(lines)} figures differ", *lines, sep="\n  ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
