"""What a run comes to, and what is said of it, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drpo.lab import statistics as stats
from drpo.lab.metrics import accuracy_curve, accuracy_metrics, by_step, evaluation_steps, tokens_to, update_metrics
from drpo.lab.results import summary_rows
from drpo.lab.study import Study
from drpo.lab.tables import markdown, table
from drpo.lab.verdict import Verdict, judge
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


OURS, THEIRS = [0.60, 0.63, 0.62, 0.61, 0.64], [0.50, 0.54, 0.51, 0.52, 0.53]
SEEDS = [0, 1, 2, 3, 4]


def claims(**changes: Any) -> list[dict[str, Any]]:
    return [{"claim": "It is so.", "ours": "drpo", "theirs": "dppo", **changes}]


def verdicts(hypotheses: list[dict[str, Any]], **scores: list[float]) -> list[Verdict]:
    study = studies.study(seeds=SEEDS, hypotheses=hypotheses, settings={"one": {}})
    return judge(study, rows(study, {("one", arm): values for arm, values in scores.items()}))


def test_a_difference_is_stated_with_interval_and_p() -> None:
    (verdict,) = verdicts(claims(), drpo=OURS, dppo=THEIRS)
    expected = stats.paired_difference([np.array(OURS)], [np.array(THEIRS)])
    assert verdict.answer == "better" and verdict.found == expected and verdict.adjusted_p == expected.p
    assert verdict.improvement is not None and verdict.improvement.value == 1.0
    assert verdict.sentence == (
        "In one, drpo is better than dppo in final accuracy (difference +0.100, 95 % confidence interval "
        f"{expected.low:+.3f} to {expected.high:+.3f}, adjusted p = {expected.p:.2g}, 5 seeds)."
    )
    (verdict,) = verdicts(claims(), drpo=THEIRS, dppo=OURS)
    assert verdict.answer == "worse" and "drpo is worse than dppo" in verdict.sentence


def test_no_difference_shown_gives_the_minimum_detectable_difference() -> None:
    (verdict,) = verdicts(claims(), drpo=[0.5, 0.6, 0.4, 0.55, 0.45], dppo=[0.55, 0.5, 0.5, 0.4, 0.5])
    assert verdict.answer == "not shown" and verdict.found is not None
    assert f"minimum detectable difference {verdict.found.detectable:.3f}" in verdict.sentence


def test_less_may_be_better() -> None:
    (verdict,) = verdicts(claims(metric="drawdown"), drpo=OURS, dppo=THEIRS)
    assert verdict.answer == "worse" and verdict.improvement is not None and verdict.improvement.value == 0.0
    assert "in largest drawdown (difference +0.100" in verdict.sentence


def test_variances_are_compared_as_a_ratio() -> None:
    wide, narrow = [0.3, 0.7, 0.45, 0.55, 0.5], [0.50, 0.49, 0.52, 0.51, 0.48]
    (verdict,) = verdicts(claims(compare="variance"), drpo=narrow, dppo=wide)
    expected = stats.variance_ratio(np.array(narrow), np.array(wide))
    assert verdict.answer == "better" and verdict.found == expected
    assert "drpo varies less than dppo in final accuracy (ratio of variances" in verdict.sentence
    (verdict,) = verdicts(claims(compare="variance"), drpo=wide, dppo=narrow)
    assert verdict.answer == "worse" and "varies more than" in verdict.sentence
    (verdict,) = verdicts(claims(compare="variance"), drpo=wide, dppo=wide[1:] + wide[:1])
    assert verdict.answer == "not shown" and verdict.found is not None
    assert f"; minimum detectable ratio {verdict.found.detectable:.2g} or its inverse" in verdict.sentence
    (verdict,) = verdicts(claims(compare="variance"), drpo=[0.5] * 5, dppo=[0.5] * 5)
    assert verdict.answer == "not judged" and "do not vary at all" in verdict.sentence


def test_holm_is_over_the_hypotheses_of_the_study() -> None:
    alone = verdicts(claims(), drpo=OURS, dppo=THEIRS)[0]
    both = [*claims(), *claims(metric="drawdown"), *claims(compare="variance")]
    three = verdicts(both, drpo=OURS, dppo=THEIRS)
    assert three[0].adjusted_p == pytest.approx(3 * alone.adjusted_p)
    assert [verdict.adjusted_p for verdict in three] == stats.holm([v.found.p for v in three if v.found])


def test_a_p_that_only_holds_alone_shows_nothing_among_many() -> None:
    ours, theirs = [0.50, 0.60, 0.52, 0.62, 0.50], [0.45, 0.52, 0.50, 0.55, 0.49]
    (alone,) = verdicts(claims(), drpo=ours, dppo=theirs)
    assert alone.answer == "better" and 0.01 < alone.adjusted_p < 0.05
    many = verdicts([*claims(), *[claim for _ in range(9) for claim in claims()]], drpo=ours, dppo=theirs)
    assert {verdict.answer for verdict in many} == {"not shown"}


def test_several_settings_are_judged_each_and_together() -> None:
    study = studies.study(seeds=SEEDS, hypotheses=claims())
    found = judge(
        study,
        rows(study, {("one", "drpo"): OURS, ("one", "dppo"): THEIRS, ("two", "drpo"): THEIRS, ("two", "dppo"): OURS}),
    )
    for verdict in found:  # one hypothesis: each experiment has a single test
        assert verdict.found is not None and verdict.adjusted_p == verdict.found.p
    assert [(verdict.setting, verdict.answer) for verdict in found] == [
        ("one", "better"),
        ("two", "worse"),
        ("all", "not shown"),
    ]
    assert found[2].sentence.startswith("Over all settings, drpo is not shown to differ from dppo")


def test_what_is_missing_is_not_judged() -> None:
    (verdict,) = verdicts(claims(), drpo=OURS, dppo=THEIRS[:4])
    assert verdict.answer == "not judged" and verdict.sentence == (
        "In one, drpo against dppo, final accuracy: not judged; 1 of 10 runs have not ended, or failed before an "
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
    assert (drpo["runs"], drpo["finished"], drpo["failed"], drpo["collapsed"]) == (5, 3, 1, 1)
    scores = np.array([0.0, *OURS[2:]])
    assert drpo["final_accuracy"] == pytest.approx(stats.iqm(scores)) and drpo["low"] < drpo["final_accuracy"]
    assert drpo["spread"] == pytest.approx(scores.std(ddof=1))
    assert dppo["runs"] == 0 and dppo["final_accuracy"] is None
    text = markdown(study, ours, judge(study, ours))
    assert "| one | drpo | 3 of 5, 1 failed |" in text and "| missing |" in text


def test_cells_keep_a_table_a_table() -> None:
    assert table(("a|b",), [["c|d\ne"], [None], [0.12345], [True]]) == (
        "| a\\|b |\n| --- |\n| c\\|d e |\n| – |\n| 0.123 |\n| True |"
    )
