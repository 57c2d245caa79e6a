"""Quantiles and shares, against numpy over all tokens at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drpo.inspection.distributions import MU_ENDS
from drpo.inspection.histograms import LOG_RATIO, SHIFT, Axis, Histogram
from drpo.inspection.inspect import inspect
from support.synthetic_log import make_log, write_jsonl


def test_quantiles_are_within_a_bin() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    counted = Histogram(Axis(-8, 8, 1600))
    counted.add(values[:2000])
    counted.add(values[2000:])
    for share, found in zip((0.01, 0.5, 0.99), counted.quantiles((0.01, 0.5, 0.99)), strict=True):
        assert found == pytest.approx(np.quantile(values, share, method="inverted_cdf"), abs=0.0051)
    assert Histogram(SHIFT).quantiles((0.5,)) == [None]


def test_values_beyond_the_axis_fall_into_its_ends() -> None:
    counted = Histogram(LOG_RATIO)
    counted.add(np.array([-50.0, 0.0, 50.0]))
    assert counted.counts[0, [0, LOG_RATIO.bins // 2, -1]].tolist() == [1, 1, 1]
    assert LOG_RATIO.middles()[LOG_RATIO.bins // 2] == pytest.approx(0, abs=1e-12)


def test_by_bin_of_mu_and_by_step(tmp_path: Path) -> None:
    log = make_log(tokens=8000, drift=0.3)
    found = inspect([write_jsonl(tmp_path / "log.jsonl", log)], delta=0.1, objectives=["drpo"])
    mu, log_r = np.exp(log["behavior_logprob"].astype(float)), (log["logprob"] - log["behavior_logprob"]).astype(float)
    shift = np.abs(np.exp(log["logprob"].astype(float)) - mu)
    assert found.figures["rare_share"] == pytest.approx((mu <= 0.01).mean())
    assert sum(b.share for b in found.mu_bins) == pytest.approx(1)
    for b, low, high in zip(found.mu_bins, (0, *MU_ENDS), MU_ENDS, strict=False):
        inside = (mu > low) & (mu <= high)
        assert (b.low, b.high) == (low, high) and b.share == pytest.approx(inside.mean(), abs=1e-3)
        if inside.sum() > 300:
            assert b.ratio_p50 == pytest.approx(np.exp(np.median(log_r[inside])), rel=0.01)
            assert b.shift_p95 == pytest.approx(np.quantile(shift[inside], 0.95), rel=0.08)
            assert b.beyond_delta == pytest.approx((shift[inside] > 0.1).mean(), abs=1e-3)
    assert [s.step for s in found.steps] == sorted(set(log["step"].tolist()))
    for s in found.steps:
        here = log["step"] == s.step
        assert s.tokens == here.sum() and s.shift == pytest.approx(shift[here].mean(), rel=1e-4)
        assert s.mismatch == pytest.approx(np.abs(log_r[here]).mean(), rel=1e-4)
        assert s.beyond_delta == pytest.approx((shift[here] > 0.1).mean(), abs=1e-9)
    assert sum(found.mu_counts) == sum(found.shift_counts) == 8000
    assert len(found.mu_edges) == len(found.mu_counts) + 1
