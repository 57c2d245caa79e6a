"""Every planted fault is found, by its name alone, and a sound log has none."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from drpo.inspection.inspect import inspect
from drpo.inspection.result import Inspection
from support.synthetic_log import Log, make_log, round_to_bfloat16, shift_by_one, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

pytestmark = pytest.mark.slow
SEEDS = range(4)


def inspected(tmp_path: Path, log: Log, delta: float | None = None) -> Inspection:
    return inspect([write_parquet(tmp_path / "log.parquet", log)], delta, ["drpo", "dppo_tv"])


def names(found: Inspection) -> list[str]:
    return [finding.name for finding in found.findings]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("drift", [0.15, 0.3, 0.5])
def test_a_sound_log_has_no_findings_but_that_it_moved_far(tmp_path: Path, seed: int, drift: float) -> None:
    found = inspected(tmp_path, make_log(seed=seed, drift=drift), delta=0.1)
    assert names(found) == (["moved_far"] if drift == 0.5 else [])
    assert found.figures["ratio"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_noise_between_two_engines_is_no_fault_but_leaves_delta_vacuous(tmp_path: Path, seed: int) -> None:
    assert names(inspected(tmp_path, make_log(seed=seed, drift=0.02))) == ["vacuous"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("drift", [0.02, 0.15, 0.3])
@pytest.mark.parametrize("temperature", [0.8, 1.25])
def test_another_temperature_is_found_and_measured(tmp_path: Path, seed: int, drift: float, temperature: float) -> None:
    found = inspected(tmp_path, make_log(seed=seed, drift=drift, temperature=temperature))
    assert names(found) == ["temperature"]
    assert found.temperature is not None
    assert found.temperature.value == pytest.approx(1 / temperature, rel=0.03)
    assert found.suggested_delta.value is None and found.findings[0].title in found.suggested_delta.reason


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("drift", [0.001, 0.15, 0.3])
@pytest.mark.parametrize("top_p", [0.9, 0.95])
def test_top_p_is_found_and_measured(tmp_path: Path, seed: int, drift: float, top_p: float) -> None:
    found = inspected(tmp_path, make_log(seed=seed, drift=drift, top_p=top_p), delta=0.03)
    assert names(found) == ["truncated"]
    measured = re.search(r"top-p ≈ (0\.\d+)", found.findings[0].evidence)
    assert measured is not None
    assert float(measured[1]) == pytest.approx(top_p, abs=0.01 + 0.35 * drift)  # drift blurs the edge


def test_renormalizing_that_never_leaves_one_token_is_found_by_its_side(tmp_path: Path) -> None:
    log = make_log(drift=0.0)
    kept = np.random.default_rng(0).uniform(0.9, 0.99, len(log["logprob"]))
    log["behavior_logprob"] = np.minimum(log["logprob"] - np.log(kept), -1e-3).astype(np.float32)
    found = inspected(tmp_path, log, delta=0.01)
    assert names(found) == ["truncated"] and "renormalizing" in found.findings[0].evidence


@pytest.mark.parametrize("noise", [0.0, 1e-5])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_ratio_of_one_is_inert(tmp_path: Path, seed: int, noise: float) -> None:
    log = make_log(seed=seed)
    jitter = noise * np.random.default_rng(seed).normal(size=len(log["logprob"]))
    log["logprob"] = np.minimum(log["behavior_logprob"] + jitter, 0).astype(np.float32)
    found = inspected(tmp_path, log)
    assert names(found) == ["inert"]
    assert ("copied" in found.findings[0].evidence) == (noise == 0)
    assert found.suggested_delta.value is None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sides", [("logprob",), ("behavior_logprob",), ("logprob", "behavior_logprob")])
def test_rounding_to_bfloat16_is_found(tmp_path: Path, seed: int, sides: tuple[str, ...]) -> None:
    log = make_log(seed=seed)
    for side in sides:
        log[side] = round_to_bfloat16(log[side])
    found = inspected(tmp_path, log, delta=0.1)
    assert names(found) == ["rounded"] and "bfloat16" in found.findings[0].title
    assert ("π" in found.findings[0].title, "μ" in found.findings[0].title) == (
        "logprob" in sides,
        "behavior_logprob" in sides,
    )


def test_rounding_to_float16_is_told_from_bfloat16(tmp_path: Path) -> None:
    log = make_log()
    log["behavior_logprob"] = log["behavior_logprob"].astype(np.float16).astype(np.float32)
    assert "float16" in inspected(tmp_path, log, delta=0.1).findings[0].title.split()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("lag", "which"), [(1, "next"), (-1, "previous")])
def test_a_shift_by_one_is_found_with_its_direction(tmp_path: Path, seed: int, lag: int, which: str) -> None:
    found = inspected(tmp_path, shift_by_one(make_log(seed=seed), lag))
    assert found.findings[0].name == "shifted" and which in found.findings[0].title
    assert not {"temperature", "truncated"} & set(names(found))


def test_a_delta_that_holds_nothing_back_is_vacuous(tmp_path: Path) -> None:
    log = make_log()
    for delta, why in ((0.9, "largest |π − μ|"), (1.0, "at least 1")):
        with pytest.warns(match="delta ≥ 1") if delta == 1 else nullcontext():
            found = inspected(tmp_path, log, delta=delta)
        assert names(found) == ["vacuous"] and why in found.findings[0].title
    assert found.figures["beyond_delta"] == 0


def test_outliers_are_counted_and_placed(tmp_path: Path) -> None:
    log = make_log()
    log["logprob"][[5, 70]] = log["behavior_logprob"][[5, 70]] - np.array([9, 6], dtype=np.float32)
    found = inspected(tmp_path, log, delta=0.1)
    assert names(found) == ["outliers"]
    assert found.findings[0].title.startswith("2 tokens") and "row 6)" in found.findings[0].evidence


def test_logprobs_that_cannot_be_are_counted_placed_and_left_out(tmp_path: Path) -> None:
    log = make_log()
    log["logprob"][3] = np.nan
    log["logprob"][9] = 0.7
    log["behavior_logprob"][11] = -np.inf
    found = inspected(tmp_path, log, delta=0.1)
    assert names(found) == ["unusable_logprobs"] and found.unusable_tokens == 3
    assert found.tokens == len(log["logprob"]) - 3
    evidence = found.findings[0].evidence
    assert "logprob is NaN or null on 1 token, first at" in evidence and "row 4: nan" in evidence
    assert "row 10: 0.7" in evidence and "row 12: -inf" in evidence


def test_a_suggested_delta_is_the_tail_of_the_diverging_tokens(tmp_path: Path) -> None:
    log = make_log(tokens=20_000, drift=0.4)
    found = inspected(tmp_path, log, delta=0.15)
    shift = np.exp(log["logprob"].astype(float)) - np.exp(log["behavior_logprob"].astype(float))
    diverging = log["advantage"] * (log["logprob"] - log["behavior_logprob"]) > 0
    assert found.suggested_delta.value == pytest.approx(np.quantile(np.abs(shift[diverging]), 0.99), rel=0.06)
