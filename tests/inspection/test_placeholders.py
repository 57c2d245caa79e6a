"""What is written where there is no log-probability is named as that, and so is another token's log-probability."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drpo.errors import DataError
from drpo.inspection.inspect import inspect
from drpo.inspection.result import Inspection
from support.planted import filled, of_top_token
from support.synthetic_log import Log, make_log, round_to_bfloat16, write_jsonl, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

pytestmark = pytest.mark.slow
LOWEST = float(np.finfo(np.float32).min)


def inspected(tmp_path: Path, log: Log, delta: float = 0.1) -> Inspection:
    return inspect([write_parquet(tmp_path / "log.parquet", log)], delta, ["drpo", "dppo_tv"])


def names(found: Inspection) -> list[str]:
    return [finding.name for finding in found.findings]


@pytest.mark.parametrize("share", [1.0, 0.05])
@pytest.mark.parametrize("column", ["logprob", "behavior_logprob"])
def test_zeros_are_placeholders_and_not_top_p(tmp_path: Path, column: str, share: float) -> None:
    found = inspected(tmp_path, filled(make_log(), column, 0.0, share))
    assert "placeholder" in names(found) and not {"truncated", "temperature"} & set(names(found))
    assert found.suggested_delta.value is None
    finding = found.findings[0]
    assert f"log {'π' if column == 'logprob' else 'μ'} is exactly 0" in finding.evidence and finding.severity == "fault"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("column", ["logprob", "behavior_logprob"])
def test_zeros_on_tokens_that_the_other_side_finds_likely_are_placeholders_too(
    tmp_path: Path, column: str, seed: int
) -> None:
    """No π is near 0 there, so that they look like the ones of a cut: but other tokens have a larger π, and no one."""
    log = make_log(seed=seed)
    other = "logprob" if column == "behavior_logprob" else "behavior_logprob"
    likely = (np.random.default_rng(seed).random(12_000) < 0.1) & (log[other] > np.log(0.2))
    found = inspected(tmp_path, {**log, column: np.where(likely, 0, log[column]).astype(np.float32)})
    assert found.findings[0].name == "placeholder" and "as low as 0.2" in found.findings[0].evidence


@pytest.mark.parametrize("column", ["logprob", "behavior_logprob"])
def test_a_policy_that_was_certain_or_became_it_has_no_placeholders(tmp_path: Path, column: str) -> None:
    """Its probabilities round to 1 on one side, and 1 − p spreads over all sizes."""
    random = np.random.default_rng(0)
    sure, less = (-(10 ** random.uniform(low, -0.5, 12_000)).astype(np.float32) for low in (-9, -4))
    other = "logprob" if column == "behavior_logprob" else "behavior_logprob"
    moved = np.where(sure > -0.01, np.minimum(sure, less), sure * random.uniform(0.7, 1.4, 12_000))
    log = {**make_log(), column: sure, other: moved.astype(np.float32)}
    assert ((np.exp(sure) == 1) & (moved < -1e-3)).mean() > 0.01
    assert not {"placeholder", "truncated"} & set(names(inspected(tmp_path, log)))


@pytest.mark.parametrize("value", [-9999.0, -100.0, -1e4, -1e9, -1e10, -1e30, LOWEST, 1.0, 100.0])
@pytest.mark.parametrize("column", ["logprob", "behavior_logprob"])
def test_a_value_that_no_sampled_token_has_is_left_out_and_named(tmp_path: Path, column: str, value: float) -> None:
    log = make_log()
    damaged = filled(log, column, value, 0.02)
    found = inspected(tmp_path, damaged)
    count = int((damaged[column] != log[column]).sum())
    assert names(found) == ["unusable_logprobs"] and found.unusable_tokens == count
    assert "placeholders" in found.findings[0].title
    assert f"{column} is {value:g}, a placeholder, on {count} tokens" in found.findings[0].evidence
    assert found.suggested_delta.value is not None


@pytest.mark.parametrize("value", [-9999.0, -1e9, 1.0])
def test_nothing_but_placeholders_is_an_error_that_names_them(tmp_path: Path, value: float) -> None:
    log = filled(make_log(tokens=1000), "behavior_logprob", value, 1.0)
    for file in (write_parquet(tmp_path / "log.parquet", log), write_jsonl(tmp_path / "log.jsonl", log)):
        with pytest.raises(DataError, match=r"no token has two usable .* a placeholder, on 1,000"):
            inspect([file])


@pytest.mark.parametrize("value", [-1.0, -10.0, float(np.log(1e-10)), float(np.log(1e-6)), float(np.log(1e-30))])
def test_a_value_that_comes_again_and_again_is_a_placeholder(tmp_path: Path, value: float) -> None:
    found = inspected(tmp_path, filled(make_log(), "behavior_logprob", value, 0.03))
    assert "placeholder" in names(found) and "log μ is exactly" in found.findings[0].evidence
    assert "truncated" not in names(found)


def test_a_constant_is_a_placeholder(tmp_path: Path) -> None:
    found = inspected(tmp_path, filled(make_log(), "behavior_logprob", -0.6931, 1.0))
    assert names(found)[0] == "placeholder" and "on all tokens" in found.findings[0].evidence


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("drift", [0.0, 0.02, 0.15])
def test_the_most_likely_tokens_probability_is_told_from_top_p(tmp_path: Path, seed: int, drift: float) -> None:
    found = inspected(tmp_path, of_top_token(12_000, seed, drift))
    assert "top_token" in names(found) and not {"truncated", "temperature", "shifted"} & set(names(found))
    assert found.suggested_delta.value is None


@pytest.mark.parametrize("seed", range(3))
def test_sampled_tokens_that_were_only_pushed_down_are_no_other_tokens(tmp_path: Path, seed: int) -> None:
    """A run on wrong answers alone: every sampled token becomes less likely, some of them by far."""
    log = make_log(seed=seed, drift=0.15)
    push = np.random.default_rng(seed).exponential(0.5, len(log["logprob"]))
    mu = log["behavior_logprob"].astype(np.float64)
    odds = mu - np.log(-np.expm1(np.minimum(mu, -1e-7))) - push
    log["logprob"] = -np.logaddexp(0, -odds).astype(np.float32)
    assert "top_token" not in names(inspected(tmp_path, log))


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.9])
@pytest.mark.parametrize("temperature", [0.4, 0.6, 1.0, 1.4])
def test_sound_values_are_no_placeholders(tmp_path: Path, temperature: float, top_p: float, narrow: bool) -> None:
    log = make_log(temperature=temperature, top_p=top_p, drift=0.3)
    if narrow:
        log |= {side: round_to_bfloat16(log[side]) for side in ("logprob", "behavior_logprob")}
    assert not {"placeholder", "top_token", "unusable_logprobs"} & set(names(inspected(tmp_path, log)))


def test_a_copied_side_is_named_as_copied(tmp_path: Path) -> None:
    log = make_log()
    found = inspected(tmp_path, {**log, "logprob": log["behavior_logprob"]})
    assert names(found) == ["inert"] and "copied" in found.findings[0].evidence
