"""The second round (`settle2`): the verdicts of its registered family, of what has run, and their figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from drpo.lab.draws import drawn_number
from drpo.lab.results import Row
from drpo.lab.robustness import areas, basins
from drpo.lab.statistics import MeanDifference
from drpo.lab.study import Hypothesis, load_study
from drpo.lab.tables import percent, table
from drpo.lab.verdict import Verdict, signed
from drpo.report.figures.area import Arm, Claim, area_figure
from tools.docs.study_pages import STUDIES, in_words, interval, load, untrained

#: The studies of the family, in the order in which their claims are listed.
FAMILY = ("settle2-tuned", "settle2-area")
AREA = "settle2-area"
#: Arm → its name in a figure.
NAMES = {
    "surrogate": "surrogate",
    "grpo": "GRPO",
    "dppo_tv": "DPPO",
    "ipo": "IPO",
    "drpo": "DRPO",
    "drpo_12.5": "DRPO, δ = 12.5",
    "kl_k1": "k1 penalty",
}
#: Arms that the figure draws: more lines would hide each other.
DRAWN = ("surrogate", "grpo", "dppo_tv", "drpo")
#: Where the figure's lines part.
HIGH_RATE = 1e-4
#: Of a claim whose study has not run.
WAITING = "not run yet"
LEGEND = (
    "Ours − theirs in final accuracy, with its 95 % confidence interval. The verdicts are after Holm's correction over "
    "the six comparisons; those that have not run count as not shown. p: of no difference; for an equivalence, of a "
    "difference of the margin or more."
)


def family() -> Iterator[tuple[str, Hypothesis, Verdict | None]]:
    """Study, claim and its verdict, None while it has not run; secondary claims are no members."""
    for name in FAMILY:
        if name in STUDIES:
            study, _, verdicts = load(name)
            yield from ((name, one.hypothesis, one) for one in verdicts if not one.hypothesis.secondary)
        else:
            _, study = load_study(name)
            yield from ((name, claim, None) for claim in study.hypotheses if not claim.secondary)


def family_block() -> str:
    """The verdict of every comparison of the family."""
    lines = [[claim.claim, *cells(verdict)] for _, claim, verdict in family()]
    head = (
        "claim",
        "verdict",
        "difference (95 %)",
        "p",
        "smallest difference found with 80 % power",
        "seeds or blocks",
    )
    return f"{table(head, lines)}\n\n{LEGEND}"


def cells(verdict: Verdict | None) -> list[str | None]:
    """Of the table, beside the claim; the p-value is that of the answer."""
    if verdict is None or not isinstance(verdict.found, MeanDifference):
        return [WAITING, None, None, None, None]
    found, power = verdict.found, verdict.detectable
    assert power is not None
    equivalence = verdict.answer == "equivalent" or "difference" not in verdict.hypothesis.tests
    p = verdict.adjusted_equivalence if equivalence else verdict.adjusted_p
    return [
        f"**{in_words(verdict)}**",
        interval(found),
        f"{p:.2g}",
        f"{power.value:.3f}",
        str(verdict.seeds),
    ]


def area_block() -> str:
    """Each arm over the area: what it gains, the width of its basin, the share of collapsed blocks."""
    study, rows, _ = load(AREA)
    found = basins(study, rows)
    lines = [
        [f"`{one.arm}`", one.blocks, signed(one.gain), percent(one.width), percent(one.collapsed)] for one in found
    ]
    kept = f"gains {found[0].kept:.3f} or more (95 %)"
    shown = table(("objective", "blocks", "mean gain in accuracy", kept, "collapsed (95 %)"), lines)
    return f"{shown}\n\n{_by_rate(rows)}"


def _by_rate(rows: Sequence[Row]) -> str:
    """How far DRPO ends from the others on either side of :data:`HIGH_RATE`: no test, as the side was chosen later."""
    final = {(row["arm"], row["seed"]): row["final_accuracy"] for row in rows}
    rates = {row["seed"]: drawn_number(row["drawn"], "learning_rate") for row in rows}
    sides = {
        "below 1e-4": [seed for seed, rate in rates.items() if rate < HIGH_RATE],
        "of 1e-4 or more": [seed for seed, rate in rates.items() if rate >= HIGH_RATE],
    }
    said = []
    for side, seeds in sides.items():
        gaps = {arm: fmean(final["drpo", seed] - final[arm, seed] for seed in seeds) for arm in DRAWN if arm != "drpo"}
        against = ", ".join(f"{NAMES[arm]} {signed(gap)}" for arm, gap in gaps.items())
        said.append(f"over the {len(seeds)} blocks with a learning rate {side}: {against}")
    return f"DRPO's final accuracy minus that of another objective, means, not tested: {'; '.join(said)}."


def figure() -> Figure:
    """How the arms end along the learning rate, and the forest of the family."""
    study, rows, _ = load(AREA)
    ((setting, area),) = areas(study, rows).items()
    courses = area["along"]["learning_rate"]
    arms = {NAMES[arm]: Arm(arm, courses[arm].means, courses[arm].blocks) for arm in DRAWN}
    members = list(family())
    (margin,) = {claim.margin for _, claim, _ in members if claim.margin}
    return area_figure(arms, untrained(rows, setting), [_row(*member) for member in members], margin)


def _row(study: str, claim: Hypothesis, verdict: Verdict | None) -> Claim:
    where = "over the area" if study == AREA else "tuned"
    name = f"{NAMES[claim.ours]} − {NAMES[claim.theirs]},\n{where}"
    if verdict is None or verdict.found is None:
        return Claim(name, WAITING)
    return Claim(name, verdict.answer, (verdict.found.value, verdict.found.low, verdict.found.high))
