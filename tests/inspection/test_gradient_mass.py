"""The share of the gradient mass that each bound removes, by bin of μ: by hand, and against autograd."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from drpo.errors import DataError
from drpo.files import read_json
from drpo.inspection.inspect import inspect
from drpo.objectives import make_objective
from tools.measure import gradient_mass

#: π, μ, Â.
BY_HAND = [(0.0015, 0.001, 1.0), (0.6, 0.4, 1.0), (0.5, 0.5, -2.0), (0.9, 0.2, 0.0)]


def log(file: Path, tokens: list[tuple[float, float, float]]) -> Path:
    """A token log of one response."""
    columns = zip(*tokens, strict=True)
    policy, behavior, advantages = (list(map(float, column)) for column in columns)
    record = {
        "step": 1,
        "logprobs": list(map(math.log, policy)),
        "behavior_logprobs": list(map(math.log, behavior)),
        "advantages": advantages,
    }
    file.write_text(json.dumps(record) + "\n")
    return file


def random_log(file: Path, count: int = 4000) -> Path:
    """Tokens of every probability, whose logits moved by about 0.3."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, count)
    moved = logits + rng.normal(0, 0.3, count)
    sigmoid = 1 / (1 + np.exp(-np.stack([moved, logits])))
    return log(file, [(*pair, advantage) for *pair, advantage in zip(*sigmoid, rng.normal(0, 1, count), strict=True)])


def test_four_tokens_by_hand(tmp_path: Path) -> None:
    """|Â r| is 1.5, 1.5 and 2, of 5; |Â r| (1 − π) is 1.49775, 0.6 and 1. A token with Â = 0 has none."""
    found = gradient_mass.shares(gradient_mass.read([log(tmp_path / "log.jsonl", BY_HAND)]))
    assert (found["tokens"], found["with_advantage"]) == (4, 3)
    close = lambda values: pytest.approx(values, rel=1e-4, abs=1e-9)  # noqa: E731
    assert found["bins"]["tokens"] == close([1 / 3, 0, 0, 2 / 3, 0])
    assert found["bins"]["mass"] == close([0.3, 0, 0, 0.7, 0])
    assert found["bins"]["logit"] == close([1.49775 / 3.09775, 0, 0, 1.6 / 3.09775, 0])
    of = found["objectives"]
    # r = 1.5 exceeds 1.2 and 1.28 for the rare token and the other alike; |π − μ| is 0.0005 and 0.2.
    for name in ("PPO", "GRPO"):
        assert of[name]["removed"] == of[name]["changed"] == close([0.3, 0, 0, 0.3, 0])
        assert of[name]["removed_logit"] == close([1.49775 / 3.09775, 0, 0, 0.6 / 3.09775, 0])
    for name in ("DPPO", "IPO"):
        assert of[name]["removed"] == of[name]["changed"] == close([0, 0, 0, 0.3, 0])
    # w = 1 − |π − μ|/δ: 1 − 1/300 and −1/3.
    assert of["DRPO"]["removed"] == [0] * 5 and of["DRPO"]["reversed"] == close([0, 0, 0, 0.3, 0])
    assert of["DRPO"]["changed"] == close([0.3 / 300, 0, 0, 0.3 * 4 / 3, 0])
    # w = 1 − (r − 1)/ε = −1.5 on both.
    assert of["SPO"]["reversed"] == close([0.3, 0, 0, 0.3, 0])
    assert of["SPO"]["changed"] == close([0.75, 0, 0, 0.75, 0])


@pytest.mark.parametrize("seed", range(5))
def test_the_mass_is_the_surrogate_s_gradient(tmp_path: Path, seed: int) -> None:
    """With respect to log π, and to the token's own logit; that to all logits is between 1 and √2 times the latter."""
    torch.manual_seed(seed)
    logits = torch.randn(20, 30, dtype=torch.float64, requires_grad=True)
    logprobs = logits.log_softmax(-1)[:, 7]
    behavior = (logprobs + 0.3 * torch.randn(20)).detach().clamp(max=-1e-3)
    advantages = torch.randn(20, dtype=torch.float64)
    loss = (-(logprobs - behavior).exp() * advantages).sum()
    to_logprobs, to_logits = torch.autograd.grad(loss, [logprobs, logits])
    tokens = list(zip(logprobs.exp().tolist(), behavior.exp().tolist(), advantages.tolist(), strict=True))
    found = gradient_mass.read([log(tmp_path / "log.jsonl", tokens)])
    np.testing.assert_allclose(found.mass, to_logprobs.abs(), rtol=1e-4)
    np.testing.assert_allclose(found.logit, to_logits[:, 7].abs(), rtol=1e-4)
    stretch = to_logits.norm(dim=1).numpy() / found.logit
    assert (stretch > 1).all() and (stretch < math.sqrt(2)).all()


def test_bins_add_up_to_what_inspect_says(tmp_path: Path) -> None:
    file = random_log(tmp_path / "log.jsonl")
    found = gradient_mass.shares(gradient_mass.read([file]))
    said = {verdict.objective: verdict for verdict in inspect([file], delta=0.15).verdicts}
    assert sum(found["bins"]["mass"]) == pytest.approx(1) and sum(found["bins"]["tokens"]) == pytest.approx(1)
    for label in ("DRPO", "DPPO", "PPO", "GRPO", "SPO", "IPO"):
        figures = found["objectives"][label]
        verdict = said[figures["settings"]["name"]]
        assert sum(figures["changed"]) == pytest.approx(verdict.changed, rel=1e-4)
        assert sum(figures["removed"]) == pytest.approx(verdict.mass[0], rel=1e-4, abs=1e-9)


def test_k1_adds_the_same_to_every_token(tmp_path: Path) -> None:
    """|Â r| |w − 1| = |Â|, wherever the token moved."""
    found = gradient_mass.read([random_log(tmp_path / "log.jsonl")])
    weights = found.weights(make_objective(**gradient_mass.BOUNDS["k1"]))
    advantages = np.abs(found.parts.tokens.advantages[found.parts.tokens.advantages != 0])
    np.testing.assert_allclose(found.mass * np.abs(weights - 1), advantages, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("label", [*gradient_mass.BOUNDS])
def test_a_match_changes_the_share_that_was_asked_for(tmp_path: Path, label: str) -> None:
    """To three digits of the threshold; a mask cannot come nearer than one token's mass."""
    found = gradient_mass.read([random_log(tmp_path / "log.jsonl")])
    made = gradient_mass.matched(found, gradient_mass.BOUNDS[label], 0.05)
    assert found.changed(make_objective(**made)) == pytest.approx(0.05, abs=3e-3)
    wider = gradient_mass.scaled(made, 1.2)
    assert found.changed(make_objective(**wider)) < 0.05 - 3e-3


def test_a_share_that_no_threshold_reaches_is_refused(tmp_path: Path) -> None:
    found = gradient_mass.read([log(tmp_path / "log.jsonl", [(0.5, 0.5, 1.0), (0.4, 0.4, -1.0)])])
    with pytest.raises(DataError, match=r"dppo_tv: .* 0.05 lies outside"):
        gradient_mass.matched(found, gradient_mass.BOUNDS["DPPO"], 0.05)
    with pytest.raises(DataError, match="no token with Â ≠ 0"):
        gradient_mass.read([log(tmp_path / "zero.jsonl", [(0.5, 0.4, 0.0)])])


def test_the_command_writes_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_mass, "FOLDER", tmp_path / "results" / "gradient-mass")
    file = random_log(tmp_path / "log.jsonl")
    monkeypatch.setattr(sys, "argv", ["gradient_mass", "tried", str(file), "--like", "DRPO"])
    gradient_mass.main()
    record = read_json(gradient_mass.FOLDER / "tried.json")
    assert record["command"] == "python -m tools.measure.gradient_mass tried log.jsonl"
    share = sum(record["objectives"]["DRPO"]["changed"])
    assert record["matched"]["share"] == pytest.approx(share)
    assert record["matched"]["objectives"]["DRPO"]["settings"]["delta"] == pytest.approx(0.15, rel=1e-2)
    changed = [one["changed"] for one in record["matched"]["objectives"].values()]
    assert changed == pytest.approx([share] * len(gradient_mass.BOUNDS), rel=0.05)
