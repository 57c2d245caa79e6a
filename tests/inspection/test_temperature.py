"""The estimator of T_π / T_μ, against logs whose temperatures are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drpo.inspection.detectors.temperature import Temperature
from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Tokens
from drpo.mismatch.temperature import Slope, logit
from support.synthetic_log import Log, make_log

pytestmark = pytest.mark.slow


def tokens_of(log: Log, updates: np.ndarray | None = None) -> Tokens:
    return Tokens(
        log["logprob"],
        log["behavior_logprob"],
        log["advantage"],
        log["sequence_id"],
        np.arange(len(log["logprob"])),
        "log",
        1.0,
        updates=updates,
    )


def estimate(log: Log, updates: np.ndarray | None = None) -> Slope | None:
    counted = Temperature()
    counted.add(Measured.of(tokens_of(log, updates)))
    return counted.slope()


@pytest.mark.parametrize("temperature", [0.6, 0.8, 0.9, 1.0, 1.1, 1.4])
def test_it_is_within_three_percent_on_a_long_tailed_policy(temperature: float) -> None:
    found = estimate(make_log(tokens=20_000, temperature=temperature, drift=0.1))
    assert found is not None
    assert found.estimate.value == pytest.approx(1 / temperature, rel=0.03)
    assert (found.explained > 0.3) == (abs(temperature - 1) > 0.05)


def test_the_interval_covers_one_on_sound_logs_as_often_as_it_should() -> None:
    found = [estimate(make_log(seed=seed, drift=0.1, tokens=8000)) for seed in range(12)]
    covered = [slope.estimate.low <= 1 <= slope.estimate.high for slope in found if slope is not None]
    assert len(covered) == 12 and sum(covered) >= 9


def test_it_is_exact_where_a_state_has_two_tokens() -> None:
    """log n = 0 there, so logit μ = a logit π to all digits."""
    random = np.random.default_rng(0)
    x = random.normal(0, 3, 20_000)
    pi, mu = (torch.nn.functional.logsigmoid(torch.tensor(a * x)).numpy() for a in (1.0, 1.25))
    index = np.arange(len(x)) // 20
    log = {
        "logprob": pi.astype(np.float32),
        "behavior_logprob": mu.astype(np.float32),
        "advantage": np.ones(len(x), dtype=np.float32),
        "sequence_id": index,
    }
    found = estimate(log)
    assert found is not None and found.estimate.value == pytest.approx(1.25, abs=0.01)
    assert found.explained > 0.9


def test_too_few_tokens_or_all_alike_give_none() -> None:
    assert estimate(make_log(tokens=500)) is None
    log = make_log(tokens=3000)
    log["logprob"][:] = log["behavior_logprob"][:] = -0.25
    assert estimate(log) is None


def test_only_first_updates_are_used_where_the_log_tells_them() -> None:
    log = make_log(tokens=16_000, drift=0.05)
    late = log["sequence_id"] % 2 == 1
    sharper = make_log(tokens=16_000, drift=0.05, temperature=0.7)
    for side in ("logprob", "behavior_logprob"):
        log[side] = np.where(late, sharper[side], log[side])
    found = estimate(log, updates=late.astype(np.int64))
    assert found is not None and found.estimate.value == pytest.approx(1, abs=0.02)


def test_logit() -> None:
    p = np.array([0.5, 0.9, 1.0, 1e-9])
    with np.errstate(divide="ignore"):
        expected = np.log(p) - np.log(1 - p)
    assert logit(np.log(p)) == pytest.approx(expected)
