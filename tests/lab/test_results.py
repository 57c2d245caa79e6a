"""What a run comes to, and what is said of it, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drpo.lab import statistics as stats
from drpo.lab.judge import Member, judge, judge_family
from drpo.lab.metrics import accuracy_curve, accuracy_metrics, by_step, evaluation_steps, tokens_to, update_metrics
from drpo.lab.results import summary_rows
from drpo.lab.study import Study
from drpo.lab.tables import markdown, table
from drpo.lab.verdict import Verdict
from support import stand_in, studies


def test_when_a_run_is_evaluated() -> None:
    assert evaluation_steps(10, 4) == [0, 4, 8, 10]
    assert evaluation_steps(8, 4) == [0, 4, 8]
    assert evaluation_steps(8, 0) == [0, 8] and evaluation_steps(2, 5) == [0, 2]


def test_a_curve_by_hand() -> None:
    curve = [(0, 0.2), (10, 0.8), (20, 0.4), (30, 0.5), (40, 0.3)]
    found = accuracy_metrics(curve)
    assert found["accuracy_before"] == 0.2
    assert found["final_accuracy"] == pytest.approx(0.4)  # the last three of five
    assert found["area"] == pytest.approx((0.5 + 0.6 + 0.45 + 0.4) / 4)
    assert found["best_accuracy"] == 0.8
    assert found["drawdown"] == pytest.approx(0.5)  # from 0.8 to 0.3
    assert accuracy_metrics([(0, 0.5), (1, 0.25)])["collapsed"] is False  # half of the best, not less
    assert accuracy_metrics([(0, 0.2), (10, 0.8), (20, 0.1), (30, 0.2), (40, 0.1)])["collapsed"] is True
    assert accuracy_metrics([(0, 0.9), (5, 0.3), (10, 0.6)])["final_accuracy"] == pytest.approx(0.45)  # not the first
    uneven = accuracy_metrics([(0, 0.0), (2, 1.0), (10, 1.0)])
    assert uneven["area"] == pytest.approx((2 * 0.5 + 8 * 1.0) / 10)
    assert accuracy_metrics([]) == {}


def test_a_failed_run_has_nothing_where_it_did_not_arrive() -> None:
    reached = [stand_in.evaluation(0, 0.4), stand_in.evaluation(2, 0.6)]
    assert accuracy_curve(reached, [0, 2, 4, 6], failed=True) == [(0, 0.4), (2, 0.6), (4, 0.0), (6, 0.0)]
    assert accuracy_curve(reached, [0, 2, 4, 6], failed=False) == [(0, 0.4), (2, 0.6)]


def test_updates_by_hand() -> None:
    updates = [stand_in.update(1), stand_in.update(2), stand_in.update(3)]  # tokens 100, 200, 300
    found = update_metrics(updates)
    assert found["tokens"] == 600
    assert found["shift"] == pytest.approx((0.01 * 100 + 0.02 * 200 + 0.03 * 300) / 600)
    assert found["mismatch"] is None and found["entropy"] is None
    assert found["ratio_max"] == 4.0 and found["shift_max"] is None
    twice = [stand_in.update(2), stand_in.update(2) | {"shift": 0.05, "tokens": 600}, stand_in.update(3)]
    assert by_step("shift", twice) == [(2, pytest.approx((0.02 * 200 + 0.05 * 600) / 800)), (3, pytest.approx(0.03))]
    assert by_step("mismatch", twice) == []
    curve = [(0, 0.3), (1, 0.4), (2, 0.6), (3, 0.5)]
    assert tokens_to(0.5, curve, updates) == 300 and tokens_to(0.3, curve, updates) == 0
    assert tokens_to(0.7, curve, updates) is None


def rows(study: Study, scores: dict[tuple[str, str], list[float]], **changes: Any) -> list[dict[str, Any]]:
    found = []
    for (setting, arm), values in scores.items():
        for seed, value in zip(study.seeds, values, strict=False):
            found.append(
                {
                    "phase": "shared",
                    "setting": setting,
                    "arm": arm,
                    "attempt": "",
                    "seed": seed,
                    "status": "finished",
                    "reason": "",
                    "final_accuracy": value,
                    "drawdown": value,
                    "collapsed": False,
                    **changes,
                }
            )
    return found


OURS, THEIRS = [0.60, 0.63, 0.62, 0.61, 0.64, 0.62], [0.50, 0.54, 0.51, 0.52, 0.53, 0.51]
SEEDS = [0, 1, 2, 3, 4, 5]


def claims(**changes: Any) -> list[dict[str, Any]]:
    return [{"claim": "It is so.", "ours": "drpo", "theirs": "dppo", **changes}]


def verdicts(hypotheses: list[dict[str, Any]], **scores: list[float]) -> list[Verdict]:
    study = studies.study(seeds=SEEDS, hypotheses=hypotheses, settings={"one": {}})
    return judge(study, rows(study, {("one", arm): values for arm, values in scores.items()}))


def test_a_difference_is_stated_with_interval_and_p() -> None:
    (verdict,) = verdicts(claims(), drpo=OURS, dppo=THEIRS)
    expected = stats.paired_difference([np.array(OURS)], [np.array(THEIRS)])
    assert verdict.answer == "better" and verdict.found is not None and verdict.level == 0.05
    assert (verdict.found.low, verdict.found.high) == pytest.approx((expected.low, expected.high))
    assert verdict.adjusted_p == pytest.approx(expected.p)
    assert verdict.improvement is not None and verdict.improvement.value == 1.0 > verdict.improvement.low
    assert verdict.sentence == (
        "In one, drpo is better than dppo in final accuracy (difference +0.102, 95 % confidence interval "
        f"{expected.low:+.3f} to {expected.high:+.3f}, adjusted p = {expected.p:.2g}, sign-flip p = 0.031, 6 seeds)."
    )
    (verdict,) = verdicts(claims(), drpo=THEIRS, dppo=OURS)
    assert verdict.answer == "worse" and "drpo is worse than dppo" in verdict.sentence


APART = {"drpo": [0.5, 0.6, 0.4, 0.55, 0.45, 0.5], "dppo": [0.55, 0.5, 0.5, 0.4, 0.5, 0.45]}


def test_what_is_undecided_gives_the_minimum_detectable_difference_at_the_corrected_level() -> None:
    (alone,) = verdicts(claims(), **APART)
    assert alone.answer == "undecided" and alone.detectable is not None
    value, low, high = alone.detectable.value, alone.detectable.low, alone.detectable.high
    assert f"minimum detectable difference {value:.3f} ({low:.3f} to {high:.3f})" in alone.sentence
    assert alone.sentence.startswith("In one, it is undecided whether drpo is better or worse than dppo in ")
    first, _ = verdicts([*claims(), *claims(metric="drawdown")], **APART)
    assert first.level == 0.025 and first.detectable is not None and first.detectable.value > value
    spread = stats.difference_spread(np.array(APART["drpo"]), np.array(APART["dppo"]))
    assert first.detectable == stats.detectable([spread], [6], 5.0, 0.025)


def test_arms_that_are_shown_to_be_close_are_equivalent_within_the_margin() -> None:
    near = [score + gap for score, gap in zip(THEIRS, (0.002, -0.001, 0.001, -0.002, 0.0, 0.003), strict=True)]
    (verdict,) = verdicts(claims(margin=0.02), drpo=near, dppo=THEIRS)
    gaps = np.array(near) - np.array(THEIRS)
    expected = stats.paired_difference([gaps], [np.zeros(6)]).p_equivalent(0.02)
    assert verdict.answer == "equivalent" and verdict.adjusted_equivalence == pytest.approx(expected)
    assert "drpo and dppo are equivalent within ±0.02 in final accuracy" in verdict.sentence
    assert f"for equivalence within ±0.02 {expected:.2g}" in verdict.sentence
    assert verdict.level == 0.05  # the two tests of one comparison count once
    (far,) = verdicts(claims(margin=0.02), **APART)
    assert far.answer == "undecided" and far.adjusted_equivalence > 0.05
    small = [score + 0.005 + gap for score, gap in zip(THEIRS, (0.001, 0, 0, 0.001, 0, 0), strict=True)]
    (both,) = verdicts(claims(margin=0.02), drpo=small, dppo=THEIRS)
    assert both.answer == "better" and "drpo is better than dppo, by less than 0.02, in" in both.sentence
    (only,) = verdicts(claims(margin=0.02, test="equivalence"), drpo=small, dppo=THEIRS)
    assert only.answer == "equivalent" and np.isnan(only.adjusted_p) and "adjusted p" not in only.sentence


def test_a_one_sided_claim_is_never_worse() -> None:
    (two,), (one,) = (verdicts(claims(one_sided=side), drpo=OURS, dppo=THEIRS) for side in (False, True))
    assert one.answer == "better" and one.adjusted_p == pytest.approx(two.adjusted_p / 2)
    (other,) = verdicts(claims(one_sided=True), drpo=THEIRS, dppo=OURS)
    assert other.answer == "undecided" and other.adjusted_p > 0.9
    (less,) = verdicts(claims(one_sided=True, metric="drawdown"), drpo=THEIRS, dppo=OURS)
    assert less.answer == "better" and less.adjusted_p == pytest.approx(one.adjusted_p)


def test_five_seeds_of_one_setting_give_no_verdict() -> None:
    study = studies.study(seeds=SEEDS[:5], hypotheses=claims())
    found = judge(
        study,
        rows(
            study,
            {
                (setting, arm): (OURS if arm == "drpo" else THEIRS)[:5]
                for setting in ("one", "two")
                for arm in ("drpo", "dppo")
            },
        ),
    )
    one, two, together = found
    assert one.answer == two.answer == "undecided" and one.adjusted_p < 0.05 and one.sign_flip == 0.0625
    assert "Student's test alone would say better; there is no verdict from 5 seeds of one setting" in one.sentence
    assert together.answer == "better" and together.sign_flip < 0.01


def test_less_may_be_better() -> None:
    (verdict,) = verdicts(claims(metric="drawdown"), drpo=OURS, dppo=THEIRS)
    assert verdict.answer == "worse" and verdict.improvement is not None and verdict.improvement.value == 0.0
    assert "in largest drawdown (difference +0.102" in verdict.sentence


def test_variances_are_compared_as_a_ratio() -> None:
    wide, narrow = [0.3, 0.7, 0.45, 0.55, 0.5, 0.6], [0.50, 0.49, 0.52, 0.51, 0.48, 0.50]
    (verdict,) = verdicts(claims(compare="variance"), drpo=narrow, dppo=wide)
    expected = stats.variance_ratio(np.array(narrow), np.array(wide))
    assert verdict.answer == "better" and verdict.found == expected
    assert "drpo varies less than dppo in final accuracy (ratio of variances" in verdict.sentence
    (verdict,) = verdicts(claims(compare="variance"), drpo=wide, dppo=narrow)
    assert verdict.answer == "worse" and "varies more than" in verdict.sentence
    (verdict,) = verdicts(claims(compare="variance"), drpo=wide, dppo=wide[1:] + wide[:1])
    assert verdict.answer == "undecided" and verdict.detectable is not None
    assert f"minimum detectable ratio {verdict.detectable.value:.2g} or its inverse" in verdict.sentence
    (verdict,) = verdicts(claims(compare="variance"), drpo=[0.5] * 6, dppo=[0.6] * 6)
    assert verdict.answer == "not judged" and "do not vary at all" in verdict.sentence


def test_what_has_no_spread_is_not_judged() -> None:
    (same,) = verdicts(claims(), drpo=OURS, dppo=OURS)
    assert same.answer == "not judged" and "both arms have the same value for every seed" in same.sentence
    (shifted,) = verdicts(claims(), drpo=[score + 0.1 for score in OURS], dppo=OURS)
    assert shifted.answer == "not judged" and "every seed has the same difference, 0.1," in shifted.sentence
    assert "minimum detectable" not in same.sentence + shifted.sentence


def test_holm_is_over_every_comparison_of_the_study() -> None:
    alone = verdicts(claims(), drpo=OURS, dppo=THEIRS)[0]
    both = [*claims(), *claims(metric="drawdown"), *claims(compare="variance")]
    three = verdicts(both, drpo=OURS, dppo=THEIRS)
    assert three[0].adjusted_p == pytest.approx(3 * alone.adjusted_p)
    study = studies.study(seeds=SEEDS, hypotheses=claims())
    of_both = {("one", "drpo"): OURS, ("one", "dppo"): THEIRS, ("two", "drpo"): THEIRS, ("two", "dppo"): OURS[::-1]}
    found = judge(study, rows(study, of_both))
    assert [verdict.setting for verdict in found] == ["one", "two", "all"]
    assert found[0].adjusted_p == pytest.approx(3 * alone.adjusted_p)


def test_comparisons_of_the_same_runs_count_once() -> None:
    twice = verdicts([*claims(), *claims(claim="The same again.")], drpo=OURS, dppo=THEIRS)
    (alone,) = verdicts(claims(), drpo=OURS, dppo=THEIRS)
    assert [verdict.adjusted_p for verdict in twice] == pytest.approx([alone.adjusted_p] * 2)
    mirrored = verdicts([*claims(), *claims(ours="dppo", theirs="drpo")], drpo=OURS, dppo=THEIRS)
    assert [verdict.answer for verdict in mirrored] == ["better", "worse"]
    assert mirrored[0].adjusted_p == pytest.approx(alone.adjusted_p)


def test_secondary_claims_are_corrected_among_themselves() -> None:
    primary, secondary = verdicts([*claims(), *claims(metric="drawdown", secondary=True)], drpo=OURS, dppo=THEIRS)
    assert primary.level == secondary.level == 0.05


def test_a_family_of_several_studies_is_corrected_together() -> None:
    study = studies.study(seeds=SEEDS, hypotheses=claims(), settings={"one": {}}, family={"other": 3})
    mine = rows(study, {("one", "drpo"): OURS, ("one", "dppo"): THEIRS})
    (alone,) = judge(study, mine)  # the other three count as not shown
    plain = stats.paired_difference([np.array(OURS)], [np.array(THEIRS)]).p
    assert alone.adjusted_p == pytest.approx(4 * plain) and alone.level == 0.0125
    three = [*claims(), *claims(metric="drawdown"), *claims(metric="area")]
    other = studies.study(seeds=SEEDS, hypotheses=three, settings={"one": {}}, family={"this": 1})
    theirs = rows(other, {("one", "drpo"): APART["drpo"], ("one", "dppo"): APART["dppo"]}, area=0.5)
    (first,), rest = judge_family([Member(study, mine, {}, "this"), Member(other, theirs, {}, "other")])
    assert first.adjusted_p == pytest.approx(4 * plain) and len(rest) == 3
    assert rest[0].level == pytest.approx(0.05 / 3)  # one of four is shown
    assert [verdict.answer for verdict in rest] == ["undecided", "undecided", "not judged"]


def test_a_p_that_only_holds_alone_shows_nothing_among_many() -> None:
    ours, theirs = [0.50, 0.60, 0.52, 0.62, 0.50, 0.55], [0.45, 0.54, 0.51, 0.56, 0.49, 0.54]
    (alone,) = verdicts(claims(), drpo=ours, dppo=theirs)
    assert alone.answer == "better" and 0.01 < alone.adjusted_p < 0.05
    metrics = ("final_accuracy", "drawdown", "area", "best_accuracy", "shift", "shift_p99", "entropy")
    many = verdicts([claim for name in metrics for claim in claims(metric=name)], drpo=ours, dppo=theirs)
    assert many[0].answer == "undecided" and many[0].level == pytest.approx(0.05 / 7)


def test_several_settings_are_judged_each_and_together() -> None:
    study = studies.study(seeds=SEEDS, hypotheses=claims())
    found = judge(
        study,
        rows(study, {("one", "drpo"): OURS, ("one", "dppo"): THEIRS, ("two", "drpo"): THEIRS, ("two", "dppo"): OURS}),
    )
    assert [(verdict.setting, verdict.answer) for verdict in found] == [
        ("one", "better"),
        ("two", "worse"),
        ("all", "undecided"),
    ]
    assert found[2].sentence.startswith("Over all settings, it is undecided whether drpo is better or worse than dppo")
    assert found[2].across is not None and found[2].across.low < 0 < found[2].across.high
    assert "over settings like these +0.00 (" in found[2].sentence and found[0].across is None


def test_the_effect_over_settings_is_normalized_by_each_range() -> None:
    study = studies.study(seeds=SEEDS, hypotheses=claims())
    wide = {("two", "drpo"): [10 * score for score in OURS], ("two", "dppo"): [10 * score for score in THEIRS]}
    *_, together = judge(study, rows(study, {("one", "drpo"): OURS, ("one", "dppo"): THEIRS, **wide}))
    low, high = np.percentile([*OURS, *THEIRS], [5, 95])
    gap = float(np.mean(OURS) - np.mean(THEIRS)) / (high - low)
    assert together.across is not None and together.across.value == pytest.approx(gap)
    assert together.across.between == 0.0


TUNED = {"tuning": studies.TUNING, "settings": {"one": {}}}


def test_a_best_at_the_edge_of_its_grid_is_told() -> None:
    study = studies.study(seeds=SEEDS, hypotheses=claims(at="best"), **TUNED)
    mine = rows(study, {("one", "drpo"): OURS, ("one", "dppo"): THEIRS}, phase="best")
    chosen = {("one", "drpo"): "learning_rate=5e-05", ("one", "dppo"): "learning_rate=0.0001"}
    (verdict,) = judge(study, mine, chosen)
    assert verdict.answer == "better" and verdict.sentence.endswith(
        "6 seeds, each at its best). Chosen at the edge of the tuning's grid, so that a better value may lie beyond: "
        "drpo lowest learning rate (5e-05); dppo highest learning rate (0.0001)."
    )
    wider = {**studies.TUNING, "learning_rates": [2e-5, 5e-5, 1e-4, 3e-4]}
    study = studies.study(seeds=SEEDS, hypotheses=claims(at="best"), tuning=wider, settings={"one": {}})
    assert "edge" not in judge(study, mine, chosen)[0].sentence


def test_what_is_missing_is_not_judged() -> None:
    (verdict,) = verdicts(claims(), drpo=OURS, dppo=THEIRS[:5])
    assert verdict.answer == "not judged" and verdict.sentence == (
        "In one, drpo against dppo, final accuracy: not judged; 1 of 12 runs have not ended, or failed before an "
        "evaluation."
    )
    study = studies.study(seeds=SEEDS, hypotheses=claims(), settings={"one": {}})
    unfinished = rows(study, {("one", "drpo"): OURS, ("one", "dppo"): THEIRS}, status="interrupted")
    assert judge(study, unfinished)[0].answer == "not judged"
    two = studies.study(seeds=[0, 1], hypotheses=claims(compare="variance"), settings={"one": {}})
    found = judge(two, rows(two, {("one", "drpo"): OURS, ("one", "dppo"): THEIRS}))
    assert "a comparison of variances needs at least 3 seeds" in found[0].sentence


def test_a_summary_drops_no_run() -> None:
    study = studies.study(seeds=SEEDS, settings={"one": {}})
    ours = rows(study, {("one", "drpo"): OURS})
    ours[0] |= {"status": "failed", "final_accuracy": 0.0, "collapsed": True}
    ours[1] |= {"status": "missing", "final_accuracy": None}
    drpo, dppo = summary_rows(study, ours, "shared")
    assert (drpo["runs"], drpo["finished"], drpo["failed"], drpo["collapsed"]) == (6, 4, 1, 1)
    scores = np.array([0.0, *OURS[2:]])
    expected = stats.mean(scores)
    assert (drpo["final_accuracy"], drpo["low"], drpo["high"]) == (expected.value, expected.low, expected.high)
    assert (drpo["least"], drpo["most"]) == (0.0, 0.64)
    assert drpo["spread"] == pytest.approx(scores.std(ddof=1))
    assert dppo["runs"] == 0 and dppo["final_accuracy"] is None
    text = markdown(study, ours, judge(study, ours))
    assert "| one | drpo | 4 of 6, 1 failed |" in text and "| missing |" in text


def test_cells_keep_a_table_a_table() -> None:
    assert table(("a|b",), [["c|d\ne"], [None], [0.12345], [True]]) == (
        "| a\\|b |\n| --- |\n| c\\|d e |\n| – |\n| 0.123 |\n| True |"
    )
