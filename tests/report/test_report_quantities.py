"""Intervals, numbers and axes, against values worked out by hand."""

from __future__ import annotations

import pytest

from drpo.intervals import wilson_interval
from drpo.report.html.quantities import finite, percent, plain, seconds
from drpo.report.svg.scales import Linear, Log, Steps


@pytest.mark.parametrize(
    ("correct", "samples", "low", "high"),
    [
        # Newcombe (1998), Statist. Med. 17:857, Table I, the score method without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # By hand: z² = 3.8415; (0.5 + z²/20 ± z √(0.025 + z²/400)) / (1 + z²/10).
        (5, 10, 0.2366, 0.7634),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval(correct: int, samples: int, low: float, high: float) -> None:
    assert wilson_interval(correct, samples) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "samples"), [(0, 0), (2, 1), (-1, 3), (float("nan"), 3)])
def test_wilson_interval_refuses_impossible_counts(correct: float, samples: float) -> None:
    with pytest.raises(ValueError, match="correct"):
        wilson_interval(correct, samples)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (1, "1"),
        (0.5, "0.5"),
        (-0.25, "−0.25"),
        (0.012345, "0.0123"),
        (12.34, "12.3"),
        (1234.5, "1,234"),
        (98765, "98,765"),
        (1.5e6, "1.5 M"),
        (2e9, "2 G"),
        (1.5e-7, "1.5e−7"),
        (1e-5, "1e−5"),
        (3e20, "3e20"),
        (0.9996, "1"),
    ],
)
def test_plain(value: float | None, text: str) -> None:
    assert plain(value) == text


def test_percent_and_seconds() -> None:
    assert percent(0.645) == "64.5 %"
    assert percent(1.0) == "100 %"
    assert percent(None) == "–"
    assert [seconds(value) for value in (None, 4.25, 185, 7800)] == [
        "–",
        "4.25 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


def test_finite() -> None:
    assert finite(3) == 3.0
    for value in (None, "3", True, float("nan"), float("inf"), 1e200, 10**400, [1.0]):
        assert finite(value) is None


def test_linear_axis_ends_on_round_numbers() -> None:
    axis = Linear(0.0, 0.65)
    assert axis.ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert axis.place(0.4) == pytest.approx(0.5)
    assert Linear(-0.3, 0.3).ticks() == pytest.approx([-0.4, -0.2, 0, 0.2, 0.4])
    assert len(Linear(0.0, 0.0).ticks()) >= 2


def test_log_axis_keeps_a_floor_for_zeros() -> None:
    axis = Log([0.003, 0.2])
    assert axis.ticks() == pytest.approx([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
    assert axis.place(0.02) == pytest.approx(0.5)
    with_zero = Log([0.0, 1e-6, 1.0])
    assert with_zero.ticks()[0] == 0.0
    assert with_zero.place(0.0) == 0.0 < with_zero.floor == with_zero.place(1e-6)
    assert Log([0.0]).place(0.0) == 0.0
    assert 0 < Log([1.0]).place(1.0) < 1


def test_steps_axis_labels_whole_numbers_only() -> None:
    assert Steps(0, 3).ticks() == [0, 1, 2, 3]
    assert Steps(1, 1).ticks() == [1, 2]
    assert Steps(0, 80).ticks() == [0, 20, 40, 60, 80]
    assert Steps(0, 12).ticks() == [0, 5, 10]
