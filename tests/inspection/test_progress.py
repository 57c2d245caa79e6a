"""Responses that degenerate over the steps, responses without a gradient, and a policy that moved far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drpo.inspection.detectors.progress import repeated_share
from drpo.inspection.inspect import inspect
from drpo.inspection.readers.tokens import Selected
from drpo.inspection.result import Finding, Inspection
from drpo.inspection.token_ids import integer_ids
from support import planted
from support.synthetic_log import Log, as_responses, make_log, make_run, write_jsonl, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

pytestmark = pytest.mark.slow
SEEDS = range(3)


def inspected(tmp_path: Path, log: Log, delta: float = 0.1) -> Inspection:
    return inspect([write_parquet(tmp_path / "log.parquet", log)], delta, ["drpo"])


def finding(found: Inspection, name: str) -> Finding | None:
    return next((finding for finding in found.findings if finding.name == name), None)


def steps_of(log: Log, count: int) -> Log:
    """The log as one of ``count`` steps of equally many responses."""
    return {**log, "step": (log["sequence_id"] * count) // (log["sequence_id"].max() + 1)}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_steady_run_has_no_collapse(tmp_path: Path, seed: int) -> None:
    found = inspected(tmp_path, steps_of(make_log(seed=seed), 12))
    assert not {"collapse", "entropy_fell", "no_signal"} & {finding.name for finding in found.findings}


@pytest.mark.parametrize("seed", SEEDS)
def test_repetition_is_found(tmp_path: Path, seed: int) -> None:
    log = steps_of(make_log(seed=seed), 12)
    found = finding(inspected(tmp_path, planted.repeating(log, 5, 0.7, seed)), "collapse")
    assert found is not None and "repeat" in found.title


@pytest.mark.parametrize("seed", SEEDS)
def test_responses_at_the_length_limit_and_empty_ones_are_found(tmp_path: Path, seed: int) -> None:
    log = steps_of(make_log(seed=seed, tokens=20_000), 12)
    random = np.random.default_rng(seed)
    starts = planted.starts_of(log)
    late = log["step"][starts] >= 8
    shorter = random.integers(10, 45, len(starts))
    limit = planted.cut_short(log, np.where(late & (random.random(len(starts)) < 0.8), 50, shorter))
    found = finding(inspected(tmp_path, limit), "collapse")
    assert found is not None and "largest length, 50 tokens" in found.title
    short = planted.cut_short(log, np.where(late, random.integers(1, 4, len(starts)), shorter))
    found = finding(inspected(tmp_path, short), "collapse")
    assert found is not None and "shrank" in found.title
    assert finding(inspected(tmp_path, planted.cut_short(log, shorter)), "collapse") is None


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_that_rises_is_a_warning_and_one_that_falls_a_note(tmp_path: Path, seed: int) -> None:
    calm, wild = (make_log(seed=seed, temperature=t, trained_temperature=t) for t in (0.6, 3.0))
    for first, last, name in ((calm, wild, "collapse"), (wild, calm, "entropy_fell")):
        late = steps_of(first, 12)["step"] >= 6
        log = {column: np.where(late, last[column], values) for column, values in steps_of(first, 12).items()}
        log["step"] = steps_of(first, 12)["step"]
        found = finding(inspected(tmp_path, log), name)
        assert found is not None and "entropy" in found.evidence
        assert found.severity == ("warning" if name == "collapse" else "note")


def test_a_logged_entropy_goes_before_the_estimate(tmp_path: Path) -> None:
    log = steps_of(make_log(), 12)
    log["entropy"] = np.where(log["step"] < 6, 1.0, 0.1).astype(np.float32)
    found = finding(inspected(tmp_path, log), "entropy_fell")
    assert found is not None and "1 → 0.1" in found.title and "estimated" not in found.evidence


@pytest.mark.parametrize("seed", SEEDS)
def test_responses_without_a_gradient_are_counted(tmp_path: Path, seed: int) -> None:
    log = make_log(seed=seed)
    found = finding(inspected(tmp_path, planted.without_signal(log, 0.8, seed)), "no_signal")
    equal = planted.without_signal(log, 0.8, seed)["advantage"][planted.starts_of(log)] == 0
    assert found is not None and f"{equal.sum():,} of {len(equal):,} responses" in found.evidence
    assert finding(inspected(tmp_path, planted.without_signal(log, 0.5, seed)), "no_signal") is None


def test_a_policy_that_moved_far_is_said_once(tmp_path: Path) -> None:
    found = finding(inspected(tmp_path, make_log(drift=0.8)), "moved_far")
    assert found is not None and "in step 0" in found.evidence
    by_update = inspected(tmp_path, make_run(drift=0.8))
    assert finding(by_update, "update_drift") and not finding(by_update, "moved_far")


def test_repeated_share_by_hand() -> None:
    ids = np.array([1, 2, 3, 4, 1, 2, 3, 4, 9, *range(10, 18), 5, 5, 5, 5, 5, 5, 5, 5, 7, 7])
    lengths = np.array([9, 8, 8, 2])
    starts = np.cumsum(lengths) - lengths
    share = repeated_share(ids, np.repeat([0, 2, 3, 4], lengths), starts, lengths)
    assert share[:3] == pytest.approx([1 / 6, 0, 4 / 5]) and np.isnan(share[3])
    assert np.isnan(repeated_share(None, np.repeat([0, 2, 3, 4], lengths), starts, lengths)).all()


def test_ids_are_numbers_in_every_layout(tmp_path: Path) -> None:
    log = steps_of(make_log(), 12)
    loops = planted.repeating(log, 5, 0.7)
    responses = as_responses(loops)
    columns = {name: np.array(values, dtype=object) for name, values in responses.items()}
    for file in (write_jsonl(tmp_path / "log.jsonl", columns), write_parquet(tmp_path / "r.parquet", responses)):
        assert finding(inspect([file], 0.1, ["drpo"]), "collapse") is not None
    assert integer_ids(["a", "b"]) is None and integer_ids([1, None]) is None and integer_ids(None) is None
    selected = integer_ids(Selected([5, 6, 7], np.array([0, 2])))
    assert selected is not None and selected.tolist() == [5, 7]
