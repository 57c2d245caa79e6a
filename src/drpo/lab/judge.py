"""From the runs to the verdicts: every hypothesis is compared, and all of a family are corrected together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from drpo.lab.comparison import Comparison, Row, compare, detectable
from drpo.lab.metrics import METRICS
from drpo.lab.statistics import ALPHA, holm, holm_levels, smallest_sign_flip
from drpo.lab.study import Study
from drpo.lab.tuning import Choices, edges
from drpo.lab.verdict import Answer, Verdict


@dataclass(frozen=True)
class Member:
    """A study of a family with its runs and what its tuning chose; ``name`` is what others of the family call it."""

    study: Study
    rows: Sequence[Row]
    choices: Choices
    name: str = ""


def judge(
    study: Study,
    rows: Sequence[Row],
    choices: Mapping[tuple[str, str], str] | None = None,
    name: str = "",
    others: Sequence[Member] = (),
) -> list[Verdict]:
    """A verdict for each hypothesis in each of its settings, then over all of them together where there are several.

    Args:
        study: its hypotheses, looks and family.
        rows: its runs.
        choices: what the tuning chose, for a warning where that is the edge of the grid.
        name: of the study, as others of its family call it.
        others: studies of its family that are at hand.
    """
    return judge_family([Member(study, rows, dict(choices or {}), name), *others])[0]


def open_arms(study: Study, verdicts: Sequence[Verdict]) -> set[str]:
    """The arms that need more seeds at a look: those of a claim that is not decided and has seeds left, and, while
    there is such a claim, those that no claim names."""
    claims = [verdict for verdict in verdicts if not verdict.hypothesis.secondary]
    left = [
        verdict.hypothesis
        for verdict in claims
        if verdict.answer == "not judged" or (verdict.answer == "undecided" and verdict.seeds < verdict.planned)
    ]
    named = {arm for verdict in claims for arm in (verdict.hypothesis.ours, verdict.hypothesis.theirs)}
    if not left:
        return set() if claims else set(study.arms)
    return {arm for claim in left for arm in (claim.ours, claim.theirs)} | (set(study.arms) - named)


def judge_family(members: Sequence[Member]) -> list[list[Verdict]]:
    """The verdicts of each study, with Holm's correction over all comparisons of all of them.

    Comparisons of the same runs count once. Those of the family that lie in a study that is not among ``members``
    count as not shown. Secondary hypotheses are a family of their own.
    """
    found = [_comparisons(member) for member in members]
    flat = [made for of_member in found for made in of_member]
    elsewhere = _elsewhere(members)
    corrected: dict[int, Verdict] = {}
    for secondary in (False, True):
        family = [made for made in flat if made.verdict.hypothesis.secondary == secondary]
        verdicts = _corrected(family, 0 if secondary else elsewhere)
        corrected |= zip(map(id, family), verdicts, strict=True)
    return [
        [_answered(corrected[id(made)], member) for made in of_member]
        for member, of_member in zip(members, found, strict=True)
    ]


def _corrected(family: Sequence[Comparison], elsewhere: int) -> list[Verdict]:
    """The verdicts with their p-values after Holm's correction over the family and as many comparisons elsewhere."""
    places = {key: place for place, key in enumerate(dict.fromkeys(made.same for made in family))}
    tests = [(made, test) for made in family for test in made.p_values]
    p_values = [made.p_values[test] for made, test in tests] + [math.nan] * elsewhere
    groups = [places[made.same] for made, _ in tests] + [len(places) + more for more in range(elsewhere)]
    adjusted, levels = holm(p_values, groups), holm_levels(p_values, groups)
    of_test = {(id(made), test): place for place, (made, test) in enumerate(tests)}
    verdicts = []
    for made in family:
        mine = {test: adjusted[of_test[id(made), test]] for test in made.p_values}
        level = levels[of_test[id(made), next(iter(made.p_values))]]
        verdicts.append(
            replace(
                made.verdict,
                adjusted_p=mine.get("difference", math.nan),
                adjusted_equivalence=mine.get("equivalence", math.nan),
                level=level,
                detectable=detectable(made, level),
            )
        )
    return verdicts


def _comparisons(member: Member) -> list[Comparison]:
    study, found = member.study, []
    for hypothesis in study.hypotheses:
        settings = hypothesis.settings or list(study.settings)
        found += [compare(study, hypothesis, setting, [setting], member.rows) for setting in settings]
        if len(settings) > 1 and hypothesis.compare == "mean":
            found.append(compare(study, hypothesis, "all", settings, member.rows))
    return found


def _elsewhere(members: Sequence[Member]) -> int:
    """Comparisons of the family that no member has."""
    here = {member.name for member in members}
    missing = {name: count for member in members for name, count in member.study.family.items() if name not in here}
    return sum(missing.values())


def _answered(verdict: Verdict, member: Member) -> Verdict:
    if verdict.found is None:
        return verdict
    remarks = [verdict.remark] if verdict.remark else []
    if verdict.hypothesis.at == "best":
        remarks += _edges(verdict, member)
    answer = answer_of(verdict)
    alone = verdict.setting != "all" and smallest_sign_flip(verdict.seeds) > ALPHA
    if alone and answer != "undecided":
        remarks.append(
            f"Student's test alone would say {answer}; there is no verdict from {verdict.seeds} seeds of one setting, "
            f"as a sign-flip test cannot go below {smallest_sign_flip(verdict.seeds):.2g}."
        )
        answer = "undecided"
    return replace(verdict, answer=answer, remark=" ".join(remarks))


def answer_of(verdict: Verdict) -> Answer:
    """By the corrected p-values; a difference that is shown comes before one that is shown to be small."""
    assert verdict.found is not None
    if verdict.adjusted_p <= ALPHA:
        if verdict.hypothesis.compare == "variance":  # less is better, and 1 is no difference
            return "better" if verdict.found.value < 1 else "worse"
        return "better" if (verdict.found.value > 0) == METRICS[verdict.metric].more_is_better else "worse"
    return "equivalent" if verdict.adjusted_equivalence <= ALPHA else "undecided"


def _edges(verdict: Verdict, member: Member) -> list[str]:
    """A warning where an arm's best value is the first or the last that was tried."""
    claim, study = verdict.hypothesis, member.study
    settings = [verdict.setting] if verdict.setting != "all" else claim.settings or list(study.settings)
    found: dict[str, list[str]] = {}
    for arm in (claim.ours, claim.theirs):
        for setting in settings:
            for edge in edges(study, arm, member.choices.get((setting, arm), "")):
                found.setdefault(f"{arm} {edge}", []).append(setting)
    if not found:
        return []
    said = [edge if places == settings else f"{edge} in {', '.join(places)}" for edge, places in found.items()]
    return [f"Chosen at the edge of the tuning's grid, so that a better value may lie beyond: {'; '.join(said)}."]
