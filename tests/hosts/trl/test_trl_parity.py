"""The gradient that TRL's loss path gives is ours: every objective, every aggregation, micro-batches, padding."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from trl import GRPOTrainer  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
from trl_runs import make_config, make_trainer

import drpo
from drpo.integrations import parity
from drpo.integrations.trl import DRPOTrainer, fused, host
from drpo.integrations.trl.parity import inputs_of, make_path, table, trainer_for
from drpo.objectives import OBJECTIVES

PATH = make_path()
GIVES = ("proximal_logprobs",)
#: Beyond each objective at its defaults: what the anchors, modifiers and sequence-level rules add.
COMPOSED = [
    {"name": "drpo", "delta": 0.3, "advantage_weighted": False},
    {"name": "drpo", "anchor": "proximal"},
    {"name": "grpo", "anchor": "proximal", "modifiers": ["tis"]},
    {"name": "grpo", "anchor": "proximal", "modifiers": [{"name": "icepop", "low": 0.2, "high": 4.0}]},
    {"name": "drpo", "modifiers": ["opsm"]},
]

entropy_is_given = pytest.mark.skipif(
    hasattr(GRPOTrainer, host.FORWARD_METHOD_BEHIND),
    reason="TRL 1.14 takes the entropy from logits, and a table of log-probabilities has none to give",
)


def test_most_objectives_are_compared() -> None:
    without = set(OBJECTIVES) - set(parity.names(GIVES))
    assert without == {"dppo_topk_tv", "dppo_topk_kl", "troll", "m2po", "clip_cov", "kl_cov"}


@pytest.mark.parametrize("loss_path", ["fused", "through TRL's log-probabilities"])
@pytest.mark.parametrize("mode", PATH.modes)
@pytest.mark.parametrize(
    "settings", [*({"name": name} for name in parity.names(GIVES)), *COMPOSED], ids=lambda s: json.dumps(s)
)
def test_gradient(settings: dict, mode: str, loss_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loss_path != "fused":
        monkeypatch.setattr(fused, "why_not_fused", lambda trainer, inputs: loss_path)
    agreement = parity.compare(PATH, settings, mode)  # pyright: ignore[reportArgumentType]
    assert agreement.worst <= parity.tolerance(PATH), agreement
    assert trainer_for(json.dumps(settings), mode).loss_path == loss_path  # pyright: ignore[reportArgumentType]


@entropy_is_given
@pytest.mark.parametrize(
    "settings", [{"name": "m2po"}, {"name": "drpo", "modifiers": [{"name": "entropy_top", "fraction": 0.3}]}]
)
def test_an_objective_over_the_whole_update_sees_it(settings: dict) -> None:
    """One micro-batch: the entropies that decide are those of TRL's forward pass."""
    padded = parity.fixed_batch()
    trainer = trainer_for(json.dumps(settings), "token_mean")
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    leaf = padded.logprobs.clone().requires_grad_(True)
    entropy = torch.rand(leaf.shape, generator=torch.Generator().manual_seed(0), dtype=leaf.dtype)
    trainer._compute_loss(table(leaf, entropy), inputs_of(padded, padded.mask.sum().float())).backward()
    ours = padded.logprobs.clone().requires_grad_(True)
    batch = drpo.TokenBatch.from_padded(ours, padded.behavior_logprobs, padded.advantages, padded.mask, entropy=entropy)
    drpo.aggregate(drpo.make_objective(**settings)(batch).loss, batch, "token_mean").backward()
    assert leaf.grad is not None and ours.grad is not None
    assert parity.difference(leaf.grad, ours.grad) <= 1e-6


def gradient_of(trainer: DRPOTrainer, padded: parity.Padded, **changes: torch.Tensor | None) -> torch.Tensor:
    """One micro-batch that is the update, with some of TRL's inputs changed (None: left out)."""
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    leaf = padded.logprobs.clone().requires_grad_(True)
    inputs = {**inputs_of(padded, padded.mask.sum().float()), **changes}
    trainer._compute_loss(table(leaf), {k: v for k, v in inputs.items() if v is not None}).backward()
    assert leaf.grad is not None
    return leaf.grad


def test_a_tool_mask_takes_its_tokens_out() -> None:
    padded = parity.fixed_batch()
    tool_mask = (torch.arange(padded.mask.shape[1]) % 3 != 0).long().expand(padded.mask.shape)
    kept = replace(padded, mask=padded.mask & tool_mask.bool())
    trainer = trainer_for('{"name": "drpo"}', "token_mean")
    found = gradient_of(trainer, padded, tool_mask=tool_mask, num_items_in_batch=kept.mask.sum().float())
    assert parity.difference(found, parity.reference({"name": "drpo"}, kept, "token_mean")) <= 1e-6


def test_without_old_logprobs_the_proximal_policy_is_the_current_one() -> None:
    """TRL leaves old_per_token_logps out exactly where the weights have not changed since sampling."""
    padded = parity.fixed_batch()
    settings = {"name": "grpo", "anchor": "proximal", "modifiers": ["tis"]}
    found = gradient_of(trainer_for(json.dumps(settings), "token_mean"), padded, old_per_token_logps=None)
    fresh = replace(padded, proximal_logprobs=padded.logprobs)
    assert parity.difference(found, parity.reference(settings, fresh, "token_mean")) <= 1e-6


def test_advantages_may_differ_within_a_response() -> None:
    padded = parity.fixed_batch()
    advantages = torch.randn(padded.mask.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = gradient_of(trainer_for('{"name": "drpo"}', "sequence_mean"), padded, advantages=advantages)
    assert (
        parity.difference(
            found, parity.reference({"name": "drpo"}, replace(padded, advantages=advantages), "sequence_mean")
        )
        <= 1e-6
    )


def test_a_share_of_the_rollout_batch_weighs_as_much_as_it_has_tokens() -> None:
    """Four updates from one rollout batch, two micro-batches each: every token weighs 1/(mean of an update)."""
    padded = parity.fixed_batch()
    trainer = trainer_for('{"name": "surrogate"}', "token_mean")
    trainer.current_gradient_accumulation_steps, trainer.args.steps_per_generation = 2, 8
    leaf = padded.logprobs.clone().requires_grad_(True)
    for row, part in enumerate(padded.micro_batches(8)):
        trainer._compute_loss(table(leaf[row : row + 1]), inputs_of(part, padded.mask.sum().float())).backward()
    whole = parity.reference({"name": "surrogate"}, padded, "token_mean")
    assert leaf.grad is not None and parity.difference(leaf.grad, 4 * whole) <= 1e-6


@pytest.mark.parametrize("corrected", [True, False])
def test_the_kl_to_the_reference_is_trls(corrected: bool) -> None:
    """β·k3, times the ratio where TRL's bias correction is on, in the objective's own aggregation."""
    padded = parity.fixed_batch()
    trainer = make_trainer(
        make_config(
            objective="surrogate",
            aggregation="token_mean",
            mismatch_limit=1e9,
            num_iterations=2,
            beta=0.3,
            use_bias_correction_kl=corrected,
        )
    )
    trainer.model.train()
    reference = (padded.logprobs + 0.3 * torch.sin(torch.arange(padded.mask.shape[1]))).clamp(max=-1e-3)
    found = gradient_of(trainer, padded, ref_per_token_logps=reference)
    leaf = padded.logprobs.clone().requires_grad_(True)
    r = (leaf - padded.behavior_logprobs).exp()
    kl = (reference - leaf).exp() - (reference - leaf) - 1
    loss = -r * padded.advantages.unsqueeze(1) + 0.3 * kl * (r if corrected else 1)
    (loss[padded.mask].sum() / padded.mask.sum()).backward()
    assert leaf.grad is not None and parity.difference(found, leaf.grad) <= 1e-6
    assert trainer._metrics["train"]["kl"][-1] == pytest.approx(float(kl[padded.mask].detach().mean()))


@entropy_is_given
def test_the_entropy_bonus_does_not_depend_on_micro_batches() -> None:
    padded = parity.fixed_batch()
    trainer = make_trainer(
        make_config(
            objective="surrogate", mismatch_limit=1e9, num_iterations=2, entropy_coef=0.1, max_completion_length=32
        )
    )
    trainer.model.train()
    for count in (1, 4):
        trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = count
        entropy = torch.ones_like(padded.logprobs).requires_grad_(True)
        size = len(padded.mask) // count
        for index, part in enumerate(padded.micro_batches(count)):
            rows = entropy[index * size : (index + 1) * size]
            trainer._compute_loss(table(part.logprobs, rows), inputs_of(part, padded.mask.sum().float())).backward()
        assert entropy.grad is not None
        torch.testing.assert_close(entropy.grad, -0.1 * padded.mask.double() / padded.mask.sum())


def test_a_micro_batch_without_tokens_has_a_zero_gradient() -> None:
    """As mask_truncated_completions can leave it: the other processes wait for this one's backward."""
    padded = parity.fixed_batch()
    for name in ("drpo", "gspo", "cppo", "vaco"):
        nothing = replace(padded, mask=torch.zeros_like(padded.mask))
        trainer = trainer_for(json.dumps({"name": name}), "sequence_mean")
        found = gradient_of(trainer, nothing, num_items_in_batch=torch.tensor(100.0))
        assert float(found.abs().max()) == 0.0
