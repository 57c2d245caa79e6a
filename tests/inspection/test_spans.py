"""Tokens that were not sampled, masks that are off by one, and text that was tokenized again, by where they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drpo.inspection.inspect import inspect
from drpo.inspection.readers.column_map import parse_column_map
from drpo.inspection.result import Finding, Inspection
from drpo.inspection.runs import runs
from support import planted
from support.synthetic_log import Log, make_log, make_run, round_to_bfloat16, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

pytestmark = pytest.mark.slow
SEEDS = range(3)
DRIFTS = (1e-4, 0.02, 0.15)


def inspected(tmp_path: Path, log: Log, delta: float = 0.1) -> Inspection:
    return inspect([write_parquet(tmp_path / "log.parquet", log)], delta, ["drpo", "dppo_tv"])


def fault(found: Inspection) -> Finding:
    """The only one."""
    (finding,) = (finding for finding in found.findings if finding.severity == "fault")
    return finding


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("is_copy", [False, True])
def test_prompt_tokens_are_found(tmp_path: Path, seed: int, drift: float, is_copy: bool) -> None:
    log = planted.with_prompts(make_log(6000, seed, drift), is_copy=is_copy, seed=seed)
    if is_copy and drift == 1e-4:
        log["behavior_logprob"] += np.float32(-0.01) * (log["behavior_logprob"] != log["logprob"])
    found = fault(inspected(tmp_path, log))
    assert found.name == "unsampled" and found.title.startswith("Prompt tokens")
    assert ("a copy of log π" if is_copy else "exactly 0") in found.title


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("drift", [0.02, 0.15])
@pytest.mark.parametrize("is_copy", [False, True])
def test_tool_output_is_found_and_a_mask_heals_it(tmp_path: Path, seed: int, drift: float, is_copy: bool) -> None:
    log = planted.with_tool_output(make_log(6000, seed, drift), is_copy=is_copy, seed=seed)
    found = fault(inspected(tmp_path, log))
    assert found.name == "unsampled" and found.title.startswith("Tool output")
    kept = log["behavior_logprob"] != (log["logprob"] if is_copy else 0)
    file = write_parquet(tmp_path / "masked.parquet", {**log, "kept": kept.astype(np.int64)})
    healed = inspect([file], 0.1, ["drpo"], columns=parse_column_map(["mask=kept"]))
    assert not [finding for finding in healed.findings if finding.severity == "fault"]


@pytest.mark.parametrize("seed", SEEDS)
def test_scattered_copies_and_ones_are_no_spans(tmp_path: Path, seed: int) -> None:
    """Both sides rounded to bfloat16 often agree; and a policy may become certain of many tokens."""
    log = make_log(seed=seed, drift=0.02)
    log |= {side: round_to_bfloat16(log[side]) for side in ("logprob", "behavior_logprob")}
    assert (log["logprob"] == log["behavior_logprob"]).mean() > 0.1
    assert not [finding for finding in inspected(tmp_path, log).findings if finding.severity == "fault"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("is_zero", [False, True])
def test_a_mask_off_by_one_is_found_with_its_side(tmp_path: Path, seed: int, place: str, is_zero: bool) -> None:
    for log in (make_log(6000, seed), make_run(3, seed=seed, drift=0.3)):
        found = fault(inspected(tmp_path, planted.with_edge(log, place, is_zero, seed)))
        assert found.name == "mask_edge" and place in found.title


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("length", [3, 8])
def test_text_that_was_tokenized_again_is_found(tmp_path: Path, seed: int, length: int) -> None:
    for log in (make_log(6000, seed), make_run(8, seed=seed, drift=0.3)):
        found = fault(inspected(tmp_path, planted.retokenized(log, 0.2, length, seed)))
        assert found.name == "retokenized"


@pytest.mark.parametrize("seed", SEEDS)
def test_outliers_apart_and_a_policy_that_moved_far_are_not_tokenized_again(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    log = make_log(6000, seed)
    at = random.random(6000) < 0.01
    log["logprob"] = np.where(at, log["behavior_logprob"] - 8, log["logprob"]).astype(np.float32)
    assert not [finding for finding in inspected(tmp_path, log).findings if finding.severity == "fault"]
    far = make_log(6000, seed, drift=3.0)
    assert (far["logprob"] - far["behavior_logprob"] < -5).sum() > 100
    assert "retokenized" not in [finding.name for finding in inspected(tmp_path, far).findings]


def test_runs_end_with_their_sequence() -> None:
    chosen = np.array([1, 1, 0, 1, 1, 1, 1, 0, 0, 1], dtype=bool)
    first, lengths = runs(chosen, np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2]))
    assert first.tolist() == [0, 3, 5, 9] and lengths.tolist() == [2, 2, 2, 1]
    assert runs(chosen & False, np.zeros(10, dtype=np.int64))[1].tolist() == []
