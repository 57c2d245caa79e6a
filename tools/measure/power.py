"""Simulate the whole procedure of the second round: looks, Holm's correction and equivalence over both studies' claims.

    python -m tools.measure.power                 # 4,000 studies a scenario
    python -m tools.measure.power --studies 500   # less

Scores are drawn; tests, correction, answers and stopping are those of drpo.lab. Writes results/power.json; `make docs`
makes the table of docs/lab.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from drpo.files import replace_text
from drpo.lab import statistics as stats
from drpo.lab.comparison import p_values
from drpo.lab.judge import answer_of, open_arms
from drpo.lab.statistics import ALPHA, nominal_level
from drpo.lab.study import Hypothesis, Study, load_study
from drpo.lab.verdict import Verdict
from tools import RESULTS

FILE = RESULTS / "power.json"
#: Standard deviation over seeds of a run's final accuracy, from round 1's tuned runs in `dense` with an evaluation of
#: 1024 x 4: the detectable difference of 20 seeds is then 0.017.
RUN = 0.018
#: Of the difference of two arms in a block of the area, and the share of blocks in which one of them collapses, which
#: costs it so much.
BLOCK, COLLAPSE, COST = 0.03, 0.05, 0.2
AREA, TUNED = "settle2-area", "settle2-tuned"


@dataclass(frozen=True)
class Scenario:
    """True differences of the tuned arms from DRPO, and over the area from the surrogate, in final accuracy."""

    name: str
    tuned: Mapping[str, float] = field(default_factory=dict)
    area: Mapping[str, float] = field(default_factory=dict)
    collapses: bool = False
    #: Only the comparison of DRPO with DPPO, tuned, instead of the family.
    alone: bool = False


#: What round 1 found: of the area's claims one is plain, and k1 ends higher.
FOUND = {"drpo": 0.05, "dppo_tv": 0.05, "grpo": 0.05}
SCENARIOS = (
    Scenario("nothing differs"),
    Scenario("nothing differs, arms collapse in some blocks", collapses=True),
    Scenario(
        "every difference is the margin, 0.02",
        {"dppo_tv": -0.02, "grpo": 0.02, "kl_k1": -0.02},
        {"drpo": 0.02, "dppo_tv": 0.0, "drpo_12.5": 0.02},
    ),
    *(Scenario(f"DRPO − DPPO is {true:g}, alone", {"dppo_tv": -true}, alone=True) for true in (0.0, 0.01, 0.015, 0.02)),
    *(
        Scenario(f"DRPO − DPPO is {true:g}, the rest as round 1 found", {"dppo_tv": -true, "kl_k1": 0.03}, FOUND)
        for true in (0.0, 0.01, 0.015, 0.02)
    ),
    *(Scenario(f"DRPO − DPPO is {true:g}, nothing else differs", {"dppo_tv": -true}) for true in (0.01, 0.015, 0.02)),
)


@cache
def studies() -> tuple[Study, Study]:
    """The tuned study and that of the area."""
    return load_study(TUNED)[1], load_study(AREA)[1]


def claims(study: Study) -> list[Hypothesis]:
    """Those of the family."""
    return [claim for claim in study.hypotheses if not claim.secondary]


def simulate(scenario: Scenario, generator: np.random.Generator) -> list[tuple[Verdict, float]]:
    """One study: the verdicts of the family with the true difference of each, the tuned ones first."""
    tuned, area = studies()
    mine = claims(tuned)[:1] if scenario.alone else claims(tuned)
    others = [] if scenario.alone else _area_verdicts(area, scenario, generator)
    scores = {
        arm: generator.normal(scenario.tuned.get(arm, 0.0), RUN, tuned.seeds_of(arm)) for arm in sorted(tuned.arms)
    }
    ran = dict.fromkeys(tuned.arms, 0)
    arms, found = set(tuned.arms), list[tuple[Verdict, dict[str, float]]]()
    for size in tuned.looks:
        ran |= {arm: min(size, tuned.seeds_of(arm)) for arm in arms}
        found = [_judged(tuned, claim, scores, ran) for claim in mine]
        answered = _corrected([*found, *others])
        arms = open_arms(tuned, answered[: len(mine)])
        if not arms:
            break
    truth = [_true(scenario.tuned, claim) for claim in mine] + [
        _true(scenario.area, one.hypothesis) for one, _ in others
    ]
    return list(zip(_corrected([*found, *others]), truth, strict=True))


def _true(means: Mapping[str, float], claim: Hypothesis) -> float:
    return means.get(claim.ours, 0.0) - means.get(claim.theirs, 0.0)


def _area_verdicts(
    study: Study, scenario: Scenario, generator: np.random.Generator
) -> list[tuple[Verdict, dict[str, float]]]:
    """Over the area: blocks differ far more than arms, and an arm may collapse in some."""
    seeds = len(study.seeds)
    block = generator.normal(0.0, 0.15, seeds)
    scores = {}
    for arm in sorted(study.arms):
        noise = generator.normal(0.0, BLOCK / np.sqrt(2), seeds)
        if scenario.collapses:
            noise -= COST * (generator.random(seeds) < COLLAPSE)
        scores[arm] = block + noise + scenario.area.get(arm, 0.0)
    ran = dict.fromkeys(study.arms, seeds)
    return [_judged(study, claim, scores, ran) for claim in claims(study)]


def _judged(
    study: Study, claim: Hypothesis, scores: Mapping[str, np.ndarray], ran: Mapping[str, int]
) -> tuple[Verdict, dict[str, float]]:
    """A claim at its latest look, with the p-values of its tests."""
    looks = study.looks_of(claim)
    sizes = [size for size in looks if size <= min(ran[claim.ours], ran[claim.theirs])]
    shares = [size / looks[-1] for size in looks]
    differences = [
        stats.paired_difference([scores[claim.ours][:size]], [scores[claim.theirs][:size]]) for size in sizes
    ]
    low, high = differences[-1].interval(2 * nominal_level(shares, len(sizes) - 1, ALPHA / 2))
    found = replace(differences[-1], low=low, high=high)
    verdict = Verdict(claim, "dense", sizes[-1], study.metric, found=found, planned=looks[-1])
    return verdict, p_values(claim, differences, shares, True)


def _corrected(family: Sequence[tuple[Verdict, dict[str, float]]]) -> list[Verdict]:
    tests = [(place, test) for place, (_, found) in enumerate(family) for test in found]
    adjusted = stats.holm([family[place][1][test] for place, test in tests], [place for place, _ in tests])
    by_test = dict(zip(tests, adjusted, strict=True))
    verdicts = []
    for place, (verdict, found) in enumerate(family):
        mine = {test: by_test[place, test] for test in found}
        made = replace(
            verdict,
            adjusted_p=mine.get("difference", float("nan")),
            adjusted_equivalence=mine.get("equivalence", float("nan")),
        )
        verdicts.append(replace(made, answer=answer_of(made)))
    return verdicts


def is_wrong(verdict: Verdict, true: float) -> bool:
    """Whether an answer says what is not so."""
    margin = verdict.hypothesis.margin
    if verdict.answer in ("better", "worse"):
        return true <= 0 if verdict.answer == "better" else true >= 0
    return verdict.answer == "equivalent" and margin is not None and abs(true) >= margin - 1e-12


def summary(scenario: Scenario, count: int, seed: int) -> dict[str, Any]:
    """Of ``count`` simulated studies: how often any verdict is wrong, and what is said of DRPO − DPPO, tuned."""
    generator = np.random.default_rng(seed)
    wrong = covered = comparisons = 0
    answers: dict[str, int] = {}
    used = 0
    for _ in range(count):
        verdicts = simulate(scenario, generator)
        wrong += any(is_wrong(verdict, true) for verdict, true in verdicts)
        for verdict, true in verdicts:
            assert verdict.found is not None
            comparisons += 1
            covered += verdict.found.low <= true <= verdict.found.high
        first = verdicts[0][0]
        answers[first.answer] = answers.get(first.answer, 0) + 1
        used += first.seeds
    return {
        "scenario": scenario.name,
        "studies": count,
        "wrong": wrong / count,
        "coverage": covered / comparisons,
        "answers": {answer: number / count for answer, number in sorted(answers.items())},
        "seeds": used / count,
    }


def main() -> None:
    """Simulate every scenario and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=4_000)
    options = parser.parse_args()
    found = []
    for place, scenario in enumerate(SCENARIOS):
        found.append(summary(scenario, options.studies, seed=place))
        print(json.dumps(found[-1], ensure_ascii=False), flush=True)
    assumptions = {"run": RUN, "block": BLOCK, "collapse": COLLAPSE, "cost": COST}
    record = {"command": "python -m tools.measure.power", "assumptions": assumptions, "scenarios": found}
    replace_text(FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
