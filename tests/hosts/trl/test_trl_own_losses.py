"""TRL's own losses and the objectives that stand for them: the same gradient from a real GRPOTrainer."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
from trl_runs import PROMPTS

import drpo
from drpo.integrations.parity import Padded, difference, fixed_batch
from drpo.integrations.trl.parity import inputs_of
from drpo.model.policy import load_policy

#: TRL's settings, and ours for the same: objective, aggregation and horizon.
LOSSES: list[tuple[dict[str, Any], dict[str, Any], Any, int | None]] = [
    ({"loss_type": "vespo"}, {"name": "vespo"}, "token_mean", None),
    (
        {"loss_type": "vespo", "vespo_k_pos": 1.0, "vespo_lambda_neg": 0.5},
        {"name": "vespo", "k_positive": 1.0, "lambda_negative": 0.5},
        "token_mean",
        None,
    ),
    (
        {"loss_type": "luspo", "importance_sampling_level": "sequence", "epsilon": 0.02},
        {"name": "luspo", "ratio_low": 0.02, "ratio_high": 0.02},
        "sequence_mean",
        None,
    ),
    (
        {"loss_type": "luspo", "importance_sampling_level": "sequence", "epsilon": 0.02},
        {"name": "gspo", "ratio_low": 0.02, "ratio_high": 0.02},
        "sequence_sum",
        1,
    ),
    ({"loss_type": "sapo"}, {"name": "sapo"}, "sequence_mean", None),
    ({"loss_type": "cispo", "epsilon_high": 3.0}, {"name": "cispo", "ratio_cap": 3.0}, "token_mean", None),
]


def own_trainer(**settings: Any) -> GRPOTrainer:
    """TRL's own trainer, of the embedded model."""
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=8,
        num_generations=2,
        num_iterations=2,
        max_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        **settings,
    )
    policy = load_policy("embedded:arithmetic", torch.device("cpu"))
    trainer = GRPOTrainer(
        args=config,
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
    )
    policy.model.train()
    trainer.current_gradient_accumulation_steps = config.steps_per_generation = 1
    return trainer


def on_policy_enough(padded: Padded) -> Padded:
    """Log-ratios a tenth as large: the product of a response's ratios neither vanishes nor overflows."""
    near = padded.behavior_logprobs + 0.1 * (padded.logprobs - padded.behavior_logprobs)
    return replace(padded, logprobs=near.clamp(max=-1e-6))


@pytest.mark.parametrize(("theirs", "ours", "mode", "horizon"), LOSSES)
def test_gradient(
    theirs: dict[str, Any], ours: dict[str, Any], mode: Any, horizon: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = on_policy_enough(fixed_batch())
    trainer = own_trainer(**theirs)
    leaf = padded.logprobs.clone().requires_grad_(True)
    monkeypatch.setattr(
        trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: (leaf, torch.ones_like(leaf), None)
    )
    inputs = {**inputs_of(padded, padded.mask.sum().float()), "old_per_token_logps": padded.behavior_logprobs}
    trainer._compute_loss(trainer.model, inputs).backward()

    own = padded.logprobs.clone().requires_grad_(True)
    batch = drpo.TokenBatch.from_padded(own, padded.behavior_logprobs, padded.advantages, padded.mask)
    drpo.aggregate(drpo.make_objective(**ours)(batch).loss, batch, mode, horizon=horizon).backward()
    assert leaf.grad is not None and own.grad is not None and bool((own.grad != 0).any())
    assert difference(torch.where(padded.mask, leaf.grad, 0.0), own.grad) <= 1e-6
