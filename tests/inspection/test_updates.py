"""Figures by update; the policy that leaves the trust region within a batch; weights that are too old."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drpo.inspection.detectors import updates
from drpo.inspection.inspect import inspect
from drpo.inspection.result import Inspection
from support.synthetic_log import Log, make_log, make_run, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

pytestmark = pytest.mark.slow
SEEDS = range(4)


def inspected(tmp_path: Path, log: Log, delta: float = 0.15) -> Inspection:
    return inspect([write_parquet(tmp_path / "log.parquet", log)], delta, ["drpo", "dppo_tv"])


def names(found: Inspection) -> list[str]:
    return [finding.name for finding in found.findings]


def test_figures_by_update(tmp_path: Path) -> None:
    log = make_run(steps=3, drift=0.4)
    found = inspected(tmp_path, log)
    log_r = (log["logprob"] - log["behavior_logprob"]).astype(float)
    shift = np.abs(np.exp(log["logprob"].astype(float)) - np.exp(log["behavior_logprob"].astype(float)))
    assert [figures.update for figures in found.updates] == [0, 1, 2, 3]
    for figures in found.updates:
        here = log["update"] == figures.update
        assert figures.tokens == here.sum()
        assert figures.shift == pytest.approx(shift[here].mean(), rel=1e-3)
        assert figures.mismatch == pytest.approx(np.abs(log_r[here]).mean(), rel=1e-3)
        assert figures.beyond_delta == pytest.approx((shift[here] > 0.15).mean(), abs=1e-9)


def test_a_log_without_updates_or_with_a_counter_instead_has_no_figures_by_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspected(tmp_path, make_log(2000)).updates == []
    monkeypatch.setattr(updates, "MOST_UPDATES", 3)
    assert inspected(tmp_path, make_run(steps=1)).updates == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [2, 4, 16])
def test_drift_within_a_batch_is_found_with_the_update_that_leaves_first(tmp_path: Path, seed: int, count: int) -> None:
    found = inspected(tmp_path, make_run(updates=count, seed=seed, drift=0.8))
    assert "update_drift" in names(found) and found.answer.state == "acts"
    finding = next(finding for finding in found.findings if finding.name == "update_drift")
    first = next(figures.update for figures in found.updates if figures.beyond_delta > 0.01)
    assert f"update {first} is the first" in finding.fix and "updates_per_step" in finding.fix


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("noise", [1e-6, 0.003, 0.02])
@pytest.mark.parametrize("drift", [0.0, 0.1, 0.2])
def test_a_healthy_run_has_neither_drift_nor_older_weights(
    tmp_path: Path, seed: int, noise: float, drift: float
) -> None:
    assert not {"update_drift", "stale"} & set(
        names(inspected(tmp_path, make_run(seed=seed, noise=noise, drift=drift)))
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("older", [range(2, 7), [4]])
def test_steps_with_older_weights_are_found(tmp_path: Path, seed: int, older: range | list[int]) -> None:
    found = inspected(tmp_path, make_run(seed=seed, noise=1e-3, older=older))
    (finding,) = (finding for finding in found.findings if finding.name == "stale")
    named = finding.evidence.rsplit("lowest: ", 1)[1].rstrip(".")
    assert named == ", ".join(map(str, older))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_size_of_the_engines_noise_is_said(tmp_path: Path, seed: int) -> None:
    for noise, source in ((0.003, "bfloat16"), (0.01, "fp8")):
        found = inspected(tmp_path, make_run(seed=seed, noise=noise))
        (finding,) = (finding for finding in found.findings if finding.name == "engine_noise")
        assert source in finding.evidence
    assert "engine_noise" not in names(inspected(tmp_path, make_run(seed=seed, noise=1e-5)))


def test_more_than_any_precision_explains_is_older_weights(tmp_path: Path) -> None:
    found = inspected(tmp_path, make_run(noise=0.5, drift=0.0))
    assert "stale" in names(found) and "no precision" in found.findings[0].title
