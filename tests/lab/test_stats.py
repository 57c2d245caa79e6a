"""The lab's statistics against scipy, by hand, and by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from drpo.errors import DataError
from drpo.lab import statistics as lab

pytestmark = pytest.mark.slow

EXPERIMENTS = 1_000
#: What an interval of 95 % may cover in that many experiments.
COVERS = (0.93, 0.97)


def scores(*values: float) -> np.ndarray:
    return np.array(values)


def test_interquartile_mean_by_hand() -> None:
    assert float(lab.iqm(scores(0, 1, 2, 3, 100))) == 2.0  # one of five is cut off at either end
    assert float(lab.iqm(scores(9, 1, 2, 3, 4, 5, 6, -50))) == pytest.approx((2 + 3 + 4 + 5) / 4)
    found = lab.interquartile_mean([scores(0, 1, 2, 3, 100), scores(0, 1, 2, 3, 100)])
    assert found.value == pytest.approx((1 + 1 + 2 + 2 + 3 + 3) / 6)
    assert found.low < found.value < found.high


def test_no_stratum_leaves_its_own_seeds() -> None:
    """Draws stay within a stratum: two that do not vary have an interval without width."""
    found = lab.interquartile_mean([scores(1, 1, 1), scores(3, 3, 3)])
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("settings", "seeds"), [(1, 5), (1, 10), (6, 5)])
def test_the_interval_of_the_interquartile_mean_covers(
    settings: int, seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "DRAWS", 1_000)
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(EXPERIMENTS):
        found = lab.interquartile_mean(list(generator.standard_normal((settings, seeds))), seed)
        covered += found.low <= 0 <= found.high
    assert COVERS[0] <= covered / EXPERIMENTS <= COVERS[1]


def test_one_stratum_is_students_paired_test() -> None:
    generator = np.random.default_rng(2)
    one, other = generator.standard_normal((2, 7))
    found, expected = lab.paired_difference([one], [other]), stats.ttest_rel(one, other)
    interval = expected.confidence_interval(0.95)
    assert found.value == pytest.approx((one - other).mean())
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))


def test_paired_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/√3, t = 2√3 with 2 degrees of freedom."""
    found = lab.paired_difference([scores(2, 4, 6)], [scores(1, 2, 3)])
    assert found.value == 2.0
    assert found.p == pytest.approx(2 * stats.t.sf(2 * math.sqrt(3), 2))
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize(("settings", "seeds"), [(1, 5), (3, 5)])
def test_the_difference_covers_and_rarely_errs(settings: int, seeds: int) -> None:
    """Arms that differ by 0.3, and whose seeds have most of their variance in common; then arms that do not differ."""
    generator = np.random.default_rng(3)
    covered, wrong = 0, 0
    for _ in range(EXPERIMENTS):
        seed_effect = generator.standard_normal((settings, seeds)) * 3
        one, other = (list(seed_effect + generator.standard_normal((settings, seeds))) for _ in range(2))
        found = lab.paired_difference([values + 0.3 for values in one], other)
        covered += found.low <= 0.3 <= found.high
        wrong += lab.paired_difference(one, other).verdict() != "not shown"
    assert COVERS[0] <= covered / EXPERIMENTS <= COVERS[1]
    assert 0.03 <= wrong / EXPERIMENTS <= 0.07


def test_the_detectable_difference_is_found_four_times_of_five() -> None:
    generator = np.random.default_rng(4)
    size, shown = 6, 0
    true = lab._noncentrality(size - 1) / math.sqrt(size)  # for differences of standard deviation 1
    for _ in range(EXPERIMENTS):
        found = lab.paired_difference([generator.standard_normal(size) + true], [np.zeros(size)])
        shown += found.verdict() == "better"
    assert 0.76 <= shown / EXPERIMENTS <= 0.84
    differences = scores(1.0, 2.0, 4.0)
    error = differences.std(ddof=1) / math.sqrt(3)
    found = lab.paired_difference([differences], [np.zeros(3)])
    assert found.detectable == pytest.approx(error * lab._noncentrality(2))


def test_seeds_that_agree_exactly() -> None:
    same = lab.paired_difference([scores(1, 2)], [scores(1, 2)])
    assert (same.value, same.p, same.verdict()) == (0.0, 1.0, "not shown")
    assert lab.paired_difference([scores(2, 3)], [scores(1, 2)]).verdict() == "better"


def test_verdicts_after_a_correction() -> None:
    found = lab.Difference(-0.1, -0.2, -0.01, 0.04, 0.2)
    assert found.verdict() == "worse" and found.verdict(p=0.08) == "not shown"
    assert lab.Difference(math.nan, 0, 0, math.nan, 0).verdict() == "not shown"


def test_probability_of_improvement_is_mann_whitneys() -> None:
    one, other = scores(3, 1, 2, 5), scores(0, 1, 4, 2)
    found = lab.probability_of_improvement([one], [other])
    statistic = stats.mannwhitneyu(one, other).statistic
    assert found.value == pytest.approx(statistic / 16)
    assert 0.0 <= found.low < found.value < found.high <= 1.0
    sure = lab.probability_of_improvement([scores(2, 3), scores(5, 6)], [scores(0, 1), scores(1, 2)])
    assert (sure.value, sure.low, sure.high) == (1.0, 1.0, 1.0)


def test_the_test_of_variances_is_pitmans_and_morgans() -> None:
    generator = np.random.default_rng(5)
    one, other = generator.standard_normal((2, 9)) * [[2.0], [1.0]]
    found, expected = lab.variance_ratio(one, other), stats.pearsonr(one + other, one - other)
    assert found.value == pytest.approx(one.var(ddof=1) / other.var(ddof=1))
    assert found.p == pytest.approx(float(expected.pvalue))  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("true", [1.0, 4.0])
def test_the_interval_of_a_ratio_of_variances_covers(true: float) -> None:
    """Seeds in common (correlation 0.6), as arms have that start alike."""
    generator = np.random.default_rng(6)
    root = np.linalg.cholesky([[true, 0.6 * math.sqrt(true)], [0.6 * math.sqrt(true), 1.0]])
    covered, wrong = 0, 0
    for _ in range(EXPERIMENTS):
        found = lab.variance_ratio(*(root @ generator.standard_normal((2, 6))))
        covered += found.low <= true <= found.high
        wrong += found.p < 0.05
    assert COVERS[0] <= covered / EXPERIMENTS <= COVERS[1]
    if true == 1.0:
        assert 0.03 <= wrong / EXPERIMENTS <= 0.07


@pytest.mark.parametrize(("size", "common"), [(5, 0.0), (6, 0.6)])
def test_the_detectable_ratio_is_found_four_times_of_five(size: int, common: float) -> None:
    generator = np.random.default_rng(8)
    needed = 1 + 2 * (1 - common**2) * lab._strength(size) ** 2
    true = needed + math.sqrt(needed**2 - 1)
    root = np.linalg.cholesky([[true, common * math.sqrt(true)], [common * math.sqrt(true), 1.0]])
    shown = 0
    for _ in range(EXPERIMENTS):
        found = lab.variance_ratio(*(root @ generator.standard_normal((2, size))))
        shown += found.p <= 0.05 and found.value > 1
    assert 0.76 <= shown / EXPERIMENTS <= 0.84
    one, other = scores(1, 2, 4, 8, 9), scores(2, 1, 5, 6, 9)
    own = float(np.corrcoef(one, other)[0, 1])
    needed = 1 + 2 * (1 - own**2) * lab._strength(5) ** 2
    assert lab.variance_ratio(one, other).detectable == pytest.approx(needed + math.sqrt(needed**2 - 1))


def test_the_interval_of_variances_and_its_test_agree() -> None:
    generator = np.random.default_rng(7)
    for _ in range(200):
        one, other = generator.standard_normal((2, 5)) * [[3.0], [1.0]]
        found = lab.variance_ratio(one, other)
        assert (found.p < 0.05) == (not found.low <= 1 <= found.high)


def test_variances_that_vanish() -> None:
    assert lab.variance_ratio(scores(1, 1, 1), scores(1, 2, 3)).value == 0.0
    assert lab.variance_ratio(scores(1, 2, 3), scores(1, 1, 1)).value == math.inf
    assert math.isnan(lab.variance_ratio(scores(1, 1, 1), scores(2, 2, 2)).value)


def test_rates_are_exact() -> None:
    """None of five: the upper end is 1 − 0.025^(1/5)."""
    none = lab.rate(0, 5)
    assert (none.value, none.low) == (0.0, 0.0) and none.high == pytest.approx(1 - 0.025**0.2)
    some = lab.rate(2, 10)
    assert some.low == pytest.approx(stats.beta.ppf(0.025, 2, 9)) and some.high == pytest.approx(
        stats.beta.ppf(0.975, 3, 8)
    )


def test_holm_by_hand() -> None:
    assert lab.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert lab.holm([0.6, 0.7]) == [1.0, 1.0]
    adjusted = lab.holm([math.nan, 0.01])
    assert math.isnan(adjusted[0]) and adjusted[1] == pytest.approx(0.02)
    assert lab.holm([]) == []


def test_holm_keeps_the_familys_error() -> None:
    """Five hypotheses without a difference: one of them is called wrongly in 5 % of the studies."""
    generator = np.random.default_rng(8)
    wrong = sum(min(lab.holm(list(generator.random(5)))) <= 0.05 for _ in range(4 * EXPERIMENTS))
    assert 0.04 <= wrong / (4 * EXPERIMENTS) <= 0.06


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lab.interquartile_mean([]), "no stratum"),
        (lambda: lab.interquartile_mean([scores(1)]), "at least 2 seeds"),
        (lambda: lab.interquartile_mean([scores(1, math.nan)]), "not finite"),
        (lambda: lab.paired_difference([scores(1, 2)], [scores(1, 2, 3)]), "do not pair up"),
        (lambda: lab.paired_difference([scores(1, 2)], [scores(1, 2)] * 2), "do not pair up"),
        (lambda: lab.variance_ratio(scores(1, 2), scores(1, 2)), "at least 3 seeds"),
        (lambda: lab.rate(3, 2), "no share"),
    ],
)
def test_what_cannot_be_compared_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        call()
