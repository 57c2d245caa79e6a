"""Several claims and several looks: Holm's correction and alpha spending, by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from drpo.lab import statistics as lab

pytestmark = pytest.mark.slow

EXPERIMENTS = 4_000


def test_holm_by_hand() -> None:
    assert lab.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert lab.holm([0.6, 0.7]) == [1.0, 1.0]
    adjusted = lab.holm([math.nan, 0.01])
    assert math.isnan(adjusted[0]) and adjusted[1] == pytest.approx(0.02)
    assert lab.holm([]) == []


def test_tests_that_exclude_each_other_count_once() -> None:
    """A difference and an equivalence of one comparison, and a second comparison: 2, 2, then 1 with a test left."""
    assert lab.holm([0.01, 0.02, 0.03], [0, 0, 1]) == pytest.approx([0.02, 0.04, 0.04])
    assert lab.holm([0.01, 0.9, 0.03], [0, 0, 1]) == pytest.approx([0.02, 0.9, 0.06])
    # A comparison that keeps a test keeps its place: the other still faces half of the level.
    assert lab.holm_levels([0.01, 0.9, 0.03], [0, 0, 1]) == pytest.approx([0.025] * 3)
    assert lab.holm_levels([0.01, 0.02, 0.03], [0, 0, 1]) == pytest.approx([0.025, 0.025, 0.05])


def test_a_level_says_what_holm_would_reject() -> None:
    generator = np.random.default_rng(9)
    for _ in range(500):
        size = int(generator.integers(1, 8))
        p_values = list(generator.random(size) ** 3)
        groups = [int(group) for group in generator.integers(0, size, size)]
        for own in (groups, None):
            rejected = [p <= 0.05 for p in lab.holm(p_values, own)]
            levels = lab.holm_levels(p_values, own)
            assert rejected == [p <= level for p, level in zip(p_values, levels, strict=True)]
    assert lab.holm_levels([0.001, math.nan, 0.2]) == pytest.approx([0.05 / 3, 0.025, 0.025])


def test_holm_keeps_the_familys_error() -> None:
    """Five hypotheses without a difference: one of them is called wrongly in 5 % of the studies."""
    generator = np.random.default_rng(8)
    wrong = sum(min(lab.holm(list(generator.random(5)))) <= 0.05 for _ in range(EXPERIMENTS))
    assert 0.04 <= wrong / EXPERIMENTS <= 0.06


@pytest.mark.parametrize(
    ("shares", "bounds"),
    [  # as published for O'Brien's and Fleming's kind, 0.025 one-sided
        ((1 / 3, 2 / 3, 1), (3.7103, 2.5114, 1.9930)),
        ((0.2, 0.4, 0.6, 0.8, 1), (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        ((0.5, 1), (2.9626, 1.9686)),
        ((1,), (1.9600,)),
    ],
)
def test_the_bounds_are_the_published_ones(shares: tuple[float, ...], bounds: tuple[float, ...]) -> None:
    levels = lab.nominal_levels(shares, 0.025)
    assert [float(stats.norm.isf(level)) for level in levels] == pytest.approx(bounds, abs=3e-4)


def test_a_sequential_p_is_the_level_that_just_rejects() -> None:
    shares = (0.25, 0.5, 1.0)
    for alpha in (0.0004, 0.004, 0.025, 0.3):
        levels = lab.nominal_levels(shares, alpha)
        for look, level in enumerate(levels):
            p_values = [0.9] * look + [level]
            assert lab.sequential_p(p_values, shares) == pytest.approx(alpha, rel=1e-3)
            assert lab.nominal_level(shares, look, alpha) == pytest.approx(level, rel=2e-3)
    assert lab.sequential_p([0.03], (1.0,)) == 0.03
    early = lab.sequential_p([0.001], shares)
    assert lab.sequential_p([0.001, 0.5], shares) == early > 0.001  # what was shown stays shown
    assert math.isnan(lab.sequential_p([math.nan], shares))
    assert lab.sequential_p([math.nan, 0.01], shares) == lab.sequential_p([1.0, 0.01], shares)


def test_looking_at_half_does_not_raise_the_error_with_few_seeds() -> None:
    """Student's tests at 10, 20 and 40 seeds, as if the statistic were normal: still 5 %."""
    generator = np.random.default_rng(10)
    sizes, wrong = (10, 20, 40), 0
    shares = [size / 40 for size in sizes]
    for _ in range(EXPERIMENTS):
        gaps = generator.standard_normal(40)
        looks = [lab.paired_difference([gaps[:size]], [np.zeros(size)]) for size in sizes]
        one_sided = [
            lab.sequential_p([look.p_above() for look in looks], shares),
            lab.sequential_p([look.p_below() for look in looks], shares),
        ]
        wrong += 2 * min(one_sided) <= 0.05
    assert 0.042 <= wrong / EXPERIMENTS <= 0.06
