"""Which of top-p, top-k and min-p cut the distribution, and where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.inspection.inspect import inspect
from drpo.inspection.result import Finding
from support.synthetic_log import Log, make_log, make_run, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

pytestmark = pytest.mark.slow
SEEDS = range(3)


def truncated(tmp_path: Path, log: Log) -> Finding:
    found = inspect([write_parquet(tmp_path / "log.parquet", log)], 0.03, ["drpo"])
    (finding,) = (finding for finding in found.findings if finding.severity == "fault")
    assert finding.name == "truncated"
    return finding


def measured(finding: Finding, kind: str) -> float:
    found = re.search(rf"{kind} ≈ ([\d.]+) and", finding.title)
    assert found is not None, finding.title
    return float(found[1])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("min_p", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("drift", [0.001, 0.15, 0.3])
def test_min_p_leaves_a_gap_below_one(tmp_path: Path, seed: int, min_p: float, drift: float) -> None:
    finding = truncated(tmp_path, make_log(seed=seed, drift=drift, min_p=min_p))
    assert measured(finding, "min-p") == pytest.approx(min_p, abs=0.005)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("top_p", [0.7, 0.9, 0.99])
def test_top_p_leaves_none(tmp_path: Path, seed: int, top_p: float) -> None:
    assert measured(truncated(tmp_path, make_log(seed=seed, drift=0.02, top_p=top_p)), "top-p") == pytest.approx(
        top_p, abs=0.01
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("top_k", [2, 5, 20, 50])
def test_top_k_is_the_mean_of_the_inverse(tmp_path: Path, seed: int, top_k: int) -> None:
    """Without drift, or at update 0 of a log that has drift later."""
    for log in (make_log(seed=seed, drift=1e-3, top_k=top_k), make_run(8, seed=seed, drift=0.3, top_k=top_k)):
        assert measured(truncated(tmp_path, log), "top-k") == pytest.approx(top_k, rel=0.25)


def test_which_cut_is_not_guessed(tmp_path: Path) -> None:
    """The kept mass depends on the state, as under top-p, but no state has one token left."""
    log = make_log(drift=0.0)
    kept = np.random.default_rng(0).uniform(0.8, 0.99, len(log["logprob"]))
    log["behavior_logprob"] = np.minimum(log["logprob"] - np.log(kept), -1e-3).astype(np.float32)
    finding = truncated(tmp_path, log)
    assert "top-p, top-k or min-p" in finding.title and "cannot be told" in finding.evidence


@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.05}])
@pytest.mark.parametrize("drift", [0.001, 0.15, 0.5])
def test_a_policy_that_is_cut_as_well_is_no_fault(tmp_path: Path, cut: dict[str, Any], drift: float) -> None:
    log = make_log(drift=drift, replayed=True, **cut)
    found = inspect([write_parquet(tmp_path / "log.parquet", log)], 0.03, ["drpo"])
    assert not [finding.name for finding in found.findings if finding.severity == "fault"]


def test_sizes_of_supports_say_that_the_policy_is_cut(tmp_path: Path) -> None:
    """Where it is not, a few tokens are enough."""
    for replayed in (True, False):
        log = make_log(tokens=150, drift=0.15, top_p=0.9, replayed=replayed)
        sizes = np.where(log["behavior_logprob"] == 0, 1, 7)
        found = inspect(
            [write_parquet(tmp_path / f"{replayed}.parquet", log | {"support_size": sizes})], 0.03, ["drpo"]
        )
        names = [finding.name for finding in found.findings if finding.severity == "fault"]
        assert names == ([] if replayed else ["truncated"])
