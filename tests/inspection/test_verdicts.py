"""Shares, masses and agreement, against sums written out over gradient_weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import drpo
from drpo.batch import TokenBatch
from drpo.errors import ConfigError
from drpo.inspection import verdicts
from drpo.inspection.inspect import inspect
from drpo.inspection.readers import record_tokens
from drpo.inspection.result import VERDICTS
from drpo.inspection.verdicts import choose_objectives, verdict_of
from drpo.objectives import OBJECTIVES, Objective
from support.synthetic_log import Log, make_log, write_jsonl


@dataclass(frozen=True, kw_only=True)
class NeedsEntropy(Objective):
    """Needs entropy; scales the surrogate by it."""

    name: ClassVar[str] = "needs_entropy"
    needs: ClassVar[tuple[str, ...]] = ("entropy",)

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        assert batch.entropy is not None
        return -(batch.logprobs - batch.behavior_logprobs).exp() * batch.advantages * batch.entropy


@dataclass(frozen=True, kw_only=True)
class NeedsMore(NeedsEntropy):
    """Needs what no record carries."""

    name: ClassVar[str] = "needs_more"
    needs: ClassVar[tuple[str, ...]] = ("topk_logprobs",)


@dataclass(frozen=True, kw_only=True)
class Whole(Objective):
    """Drops the sequences whose mean |log r| is above a bound: cut one in half and the result is another."""

    name: ClassVar[str] = "whole"
    token_local: ClassVar[bool] = False

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        index = batch.sequence_index()
        log_r = batch.logprobs - batch.behavior_logprobs
        means = torch.zeros(int(index[-1]) + 1).scatter_reduce(
            0, index, log_r.detach().abs(), "mean", include_self=False
        )
        return -log_r.exp() * batch.advantages * (means < 0.195)[index]


def weights(log: Log, objective: Objective) -> np.ndarray:
    tensors = (torch.from_numpy(log[name]) for name in ("logprob", "behavior_logprob", "advantage"))
    batch = TokenBatch(*tensors, sequence_ids=torch.from_numpy(log["sequence_id"]))
    return drpo.gradient_weight(objective, batch).numpy()


@pytest.fixture(scope="module")
def log() -> Log:
    log = make_log(tokens=3000, drift=0.4)
    log["advantage"][log["sequence_id"] == 3] = 0
    return log


def test_every_registered_objective_is_evaluated_and_counted_right(tmp_path: Path, log: Log) -> None:
    found = inspect([write_jsonl(tmp_path / "log.jsonl", log)])
    evaluated = [v.objective for v in found.verdicts]
    assert [name for name in OBJECTIVES if name not in found.not_evaluated] == evaluated
    assert {*evaluated, *found.not_evaluated} == set(OBJECTIVES) and len(evaluated) > 15
    assert "decides over all tokens of an update" in found.not_evaluated["m2po"]
    moved = log["advantage"] != 0
    mass = np.abs(log["advantage"]) * np.exp(log["logprob"] - log["behavior_logprob"])
    classes = []
    for verdict in found.verdicts:
        w = weights(log, drpo.make_objective(verdict.objective))
        kinds = verdict_of(w)[moved]
        classes.append(kinds)
        for i in range(len(VERDICTS)):
            assert verdict.tokens[i] == pytest.approx((kinds == i).mean(), abs=1e-9)
            assert verdict.mass[i] == pytest.approx(mass[moved][kinds == i].sum() / mass[moved].sum(), abs=1e-5)
        change = np.abs(w - 1)[moved] @ mass[moved]
        assert verdict.changed == pytest.approx(change / mass[moved].sum(), rel=1e-4, abs=1e-9)
        up = log["advantage"][moved] > 0
        for sign, shares in ((up, verdict.tokens_positive), (~up, verdict.tokens_negative)):
            assert shares == pytest.approx([(kinds[sign] == i).mean() for i in range(len(VERDICTS))], abs=1e-9)
        for step, share in enumerate(verdict.changed_by_step):
            here = moved & (log["step"] == step)
            assert share == pytest.approx(np.abs(w - 1)[here] @ mass[here] / mass[here].sum(), rel=1e-4, abs=1e-9)
        assert verdict.undefined == 0
    for i, a in enumerate(classes):
        for j, b in enumerate(classes):
            assert found.agreement[i][j] == pytest.approx((a == b).mean(), abs=1e-6)


def test_the_five_verdicts() -> None:
    w = np.array([0.0, 0.5, 0.995, 1.0, 1.005, 2.0, -0.5, np.nan, 1e-9], dtype=np.float32)
    names = [*VERDICTS, "none"]
    assert [names[i] for i in verdict_of(w)] == [
        "masked",
        "damped",
        "unchanged",
        "unchanged",
        "unchanged",
        "amplified",
        "corrective",
        "none",
        "masked",
    ]


def test_delta_goes_to_every_objective_that_has_one(tmp_path: Path, log: Log) -> None:
    found = inspect([write_jsonl(tmp_path / "log.jsonl", log)], delta=0.07)
    parameters = {v.objective: v.parameters for v in found.verdicts}
    assert "delta=0.07" in parameters["drpo"] and "delta=0.07" in parameters["dppo_tv"]
    assert "delta" not in parameters["grpo"] and found.delta == 0.07


def test_what_lacks_its_columns_is_named_with_the_reason(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        verdicts, "OBJECTIVES", {"drpo": OBJECTIVES["drpo"], "needs_entropy": NeedsEntropy, "needs_more": NeedsMore}
    )
    found = inspect([write_jsonl(tmp_path / "log.jsonl", log)])
    assert found.not_evaluated == {
        "needs_entropy": "needs entropy: log the column entropy",
        "needs_more": "needs topk_logprobs, which token records do not carry",
    }
    with pytest.raises(ConfigError, match="needs_entropy cannot be evaluated on this log: needs entropy"):
        choose_objectives(["needs_entropy"], None, ())
    with_entropy = {**log, "entropy": np.full(3000, 0.25, dtype=np.float32)}
    found = inspect([write_jsonl(tmp_path / "entropy.jsonl", with_entropy)])
    assert found.verdicts[1].objective == "needs_entropy"
    assert found.verdicts[1].tokens == [0, 1, 0, 0, 0] and found.verdicts[1].changed == pytest.approx(0.75, rel=1e-5)


def test_sequences_reach_an_objective_whole(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "OBJECTIVES", {"whole": Whole})
    file = write_jsonl(tmp_path / "log.jsonl", log)
    expected = inspect([file]).verdicts[0]
    assert 0.05 < expected.tokens[0] < 0.95
    monkeypatch.setattr(record_tokens, "CHUNK_TOKENS", 120)
    assert inspect([file]).verdicts[0].tokens == pytest.approx(expected.tokens)
    assert expected.tokens[0] == pytest.approx((weights(log, Whole()) == 0)[log["advantage"] != 0].mean())
