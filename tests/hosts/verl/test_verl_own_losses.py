"""verl's own losses and the objectives that stand for them: the same gradient from its registered functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from verl.trainer.ppo.core_algos import get_policy_loss_fn

import drpo
from drpo.integrations.parity import difference, fixed_batch

#: verl's loss_mode, its settings, and ours for the same.
LOSSES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("dro", {"dro_beta": 0.3}, {"name": "dro", "beta": 0.3}),
    ("gpg", {}, {"name": "dro", "beta": 0.0}),
    ("kl_cov", {}, {"name": "kl_cov"}),
    ("kl_cov", {"kl_cov_ratio": 0.1, "ppo_kl_coef": 0.2}, {"name": "kl_cov", "fraction": 0.1, "coefficient": 0.2}),
    # As many as may go: which tokens verl would draw of more is random.
    (
        "clip_cov",
        {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.5},
        {"name": "clip_cov", "fraction": 1.0, "covariance_low": 0.5},
    ),
    ("clip_cov", {"clip_cov_lb": 1e3, "clip_cov_ub": 2e3}, {"name": "ppo"}),
]


@pytest.mark.parametrize(("loss_mode", "settings", "ours"), LOSSES)
def test_gradient(loss_mode: str, settings: dict[str, Any], ours: dict[str, Any]) -> None:
    padded = fixed_batch()
    options = ("clip_cov_ratio", "clip_cov_lb", "clip_cov_ub", "kl_cov_ratio", "ppo_kl_coef", "dro_beta")
    config = SimpleNamespace(
        clip_ratio=0.2,
        clip_ratio_low=None,
        clip_ratio_high=None,
        policy_loss=SimpleNamespace(**{**dict.fromkeys(options), **settings}),
        global_batch_info={"dp_size": 1, "batch_num_tokens": int(padded.mask.sum())},
    )
    leaf = padded.logprobs.clone().requires_grad_(True)
    loss, _ = get_policy_loss_fn(loss_mode)(
        old_log_prob=padded.behavior_logprobs,
        log_prob=leaf,
        advantages=padded.advantages.unsqueeze(1).expand(padded.mask.shape),
        response_mask=padded.mask,
        loss_agg_mode="token-mean",
        config=config,
    )
    loss.backward()

    own = padded.logprobs.clone().requires_grad_(True)
    batch = drpo.TokenBatch.from_padded(own, padded.behavior_logprobs, padded.advantages, padded.mask)
    objective = drpo.make_objective(**ours)
    drpo.aggregate(objective(batch).loss, batch, "token_mean").backward()
    assert leaf.grad is not None and own.grad is not None and bool((own.grad != 0).any())
    assert difference(leaf.grad, own.grad) <= 1e-9
    if loss_mode == "clip_cov" and ours["name"] == "clip_cov":
        dropped = drpo.gradient_weight(objective, batch) == 0
        assert dropped.sum() > (drpo.gradient_weight(drpo.make_objective("ppo"), batch) == 0).sum()
