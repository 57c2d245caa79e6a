"""avg@k and pass@k against hand-computed values, and the coverage of their intervals by simulation."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import pytest

from drpo.train.pass_rates import mean_estimate, pass_at_k, pass_rates, powers_of_two


@pytest.mark.parametrize(
    ("graded", "correct", "k", "expected"),
    [
        (4, 2, 1, 1 / 2),
        (4, 2, 2, 5 / 6),  # of the 6 pairs, one has both wrong ones
        (4, 2, 3, 1.0),
        (4, 0, 4, 0.0),
        (10, 1, 5, 1 / 2),
        (16, 3, 8, 1 - 8 * 7 * 6 / (16 * 15 * 14)),
        (1000, 1, 500, 1 / 2),
        (1, 1, 1, 1.0),
    ],
)
def test_pass_at_k_by_hand(graded: int, correct: int, k: int, expected: float) -> None:
    assert pass_at_k(graded, correct, k) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("graded", "correct", "k"), [(6, 2, 3), (5, 4, 2), (7, 1, 7), (6, 0, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(graded: int, correct: int, k: int) -> None:
    subsets = list(itertools.combinations([True] * correct + [False] * (graded - correct), k))
    assert pass_at_k(graded, correct, k) == pytest.approx(fmean(map(any, subsets)))


def test_pass_at_k_is_unbiased() -> None:
    """Its expectation over n draws is 1 − (1 − p)^k, summed exactly over the binomial distribution of c."""
    from math import comb

    n, p = 9, 0.23
    for k in range(1, n + 1):
        mean = sum(comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
        assert mean == pytest.approx(1 - (1 - p) ** k, rel=1e-12)


@pytest.mark.parametrize(("graded", "correct", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_pass_at_k_refuses_what_it_cannot_know(graded: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"got k={k}, n={graded}, c={correct}"):
        pass_at_k(graded, correct, k)


def test_powers_of_two() -> None:
    assert [powers_of_two(limit) for limit in (1, 2, 3, 4, 16, 31)] == [
        [1],
        [1, 2],
        [1, 2],
        [1, 2, 4],
        [1, 2, 4, 8, 16],
        [1, 2, 4, 8, 16],
    ]


def test_pass_rates_by_hand() -> None:
    rates = pass_rates([(4, 4), (4, 2), (4, 0)], 4)
    assert rates["avg_at_k"] == {"k": 4, **rates["pass_at_k"]["1"]}
    assert rates["avg_at_k"]["mean"] == pytest.approx(0.5)
    assert {k: (e["mean"], e["problems"]) for k, e in rates["pass_at_k"].items()} == {
        "1": (pytest.approx(0.5), 3),
        "2": (pytest.approx((1 + 5 / 6 + 0) / 3), 3),
        "4": (pytest.approx(2 / 3), 3),
    }


def test_problems_with_too_few_graded_responses_take_no_part() -> None:
    rates = pass_rates([(4, 2), (1, 1), (0, 0)], 4)
    assert {k: (e["mean"], e["problems"]) for k, e in rates["pass_at_k"].items()} == {
        "1": (pytest.approx(0.75), 2),
        "2": (pytest.approx(5 / 6), 1),
        "4": (1.0, 1),
    }
    assert pass_rates([(1, 1), (1, 0)], 2)["pass_at_k"].keys() == {"1"}
    assert pass_rates([(0, 0)], 2) == {"avg_at_k": None, "pass_at_k": {}}


def test_intervals_by_hand() -> None:
    # One answer a problem, 10 of 40 right: Wilson's interval for 39 answers (s² has 39 in its denominator), at
    # Student's quantile for 39 degrees of freedom, 2.0227.
    estimate = mean_estimate([1.0] * 10 + [0.0] * 30, [1] * 40)
    assert estimate is not None and estimate.mean == 0.25 and estimate.problems == 40
    n, z, p = 39, 2.0227, 0.25
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    assert (estimate.low, estimate.high) == pytest.approx((center - half, center + half), abs=2e-5)


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.127), (1.0, 0.873, 1.0)])
def test_thirty_problems_all_alike_are_no_certainty(value: float, low: float, high: float) -> None:
    estimate = mean_estimate([value] * 30, [16] * 30)
    assert estimate is not None
    assert (estimate.mean, estimate.low, estimate.high) == (
        value,
        pytest.approx(low, abs=5e-3),
        pytest.approx(high, abs=5e-3),
    )


def test_the_interval_shrinks_with_problems_and_with_answers_to_each() -> None:
    def width(values: list[float], size: int) -> float:
        estimate = mean_estimate(values, [size] * len(values))
        assert estimate is not None
        return estimate.high - estimate.low

    assert width([0.5] * 30, 16) < width([0.25, 0.75] * 15, 16) < width([0.0, 1.0] * 15, 16)
    assert width([0.0, 1.0] * 60, 16) == pytest.approx(width([0.0, 1.0] * 15, 16) / 2, rel=0.1)
    assert width([0.5], 4) > 0.5 and mean_estimate([], []) is None


@pytest.mark.parametrize(("problems", "samples", "shape"), [(30, 16, (0.3, 0.7)), (60, 4, (0.2, 1.8)), (30, 1, (2, 2))])
def test_coverage(problems: int, samples: int, shape: tuple[float, float]) -> None:
    """Problems whose pass rates follow a Beta distribution: 95 % intervals hold its mean in 93 to 99 % of the cases;
    those of pass@k as well."""
    rng, runs, held = random.Random(0), 1500, {1: 0, samples: 0}
    truth = {1: shape[0] / sum(shape), samples: 1.0}
    for i in range(samples):  # E[(1 − p)^k] of a Beta distribution
        truth[samples] *= (shape[1] + i) / (sum(shape) + i)
    truth[samples] = 1 - truth[samples]
    for _ in range(runs):
        rates = [rng.betavariate(*shape) for _ in range(problems)]
        counts = [(samples, sum(rng.random() < rate for _ in range(samples))) for rate in rates]
        for k in held:
            estimate = mean_estimate([pass_at_k(n, c, k) for n, c in counts], [n / k for n, _ in counts])
            assert estimate is not None
            held[k] += estimate.low <= truth[k] <= estimate.high
    # Three standard errors of such a share are 0.017.
    assert all(0.95 - 0.02 <= share / runs <= 0.99 for share in held.values()), {k: v / runs for k, v in held.items()}
