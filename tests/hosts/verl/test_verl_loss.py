"""The loss inside verl's ``ppo_loss``: next to its entropy and KL terms, its metrics, its own losses, its traps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn, kl_penalty
from verl.utils import tensordict_utils as tu
from verl.utils.metric import Metric
from verl.workers.config import DistillationLossConfig
from verl.workers.utils.losses import ppo_loss

import drpo
from drpo.errors import ConfigError, DataError, MismatchError
from drpo.integrations import parity
from drpo.integrations.parity import HORIZON, Padded, fixed_batch
from drpo.integrations.verl_plugin.composition import composed, instantiated
from drpo.integrations.verl_plugin.parity import VerlPath, config_for, make_path, model_output, to_tensordict

DRPO = {"name": "drpo"}


def called(config: Any, padded: Padded, **more: Any) -> tuple[torch.Tensor, dict[str, float]]:
    """Our loss with the arguments that ppo_loss gives, on a micro-batch of an update of 100 tokens."""
    config.global_batch_info.update(
        dp_size=1, batch_num_tokens=100, global_batch_size=len(padded.mask), loss_scale_factor=None
    )
    arguments = {
        "old_log_prob": padded.behavior_logprobs,
        "log_prob": padded.logprobs,
        "advantages": padded.advantages.unsqueeze(1).expand(padded.mask.shape),
        "response_mask": padded.mask,
        "loss_agg_mode": config.loss_agg_mode,
        "config": config,
        "rollout_is_weights": None,
    }
    return get_policy_loss_fn("drpo")(**{**arguments, **more})


def through_ppo_loss(config: Any, padded: Padded, **fields: torch.Tensor) -> tuple[torch.Tensor, dict, torch.Tensor]:
    """Loss, metrics and gradient ``[B, T]`` of verl's ppo_loss; entropy, where given, is a model output."""
    leaf = padded.logprobs.clone().requires_grad_(True)
    entropy = fields.pop("entropy", None)
    data = to_tensordict(padded, **fields)
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=int(padded.mask.sum()), global_batch_size=len(padded.mask))
    output = {"log_probs": model_output(data, leaf)}
    if entropy is not None:
        output["entropy"] = model_output(data, entropy)
    loss, metrics = ppo_loss(config, output, data)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss, metrics, gradient


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sequence_sum"])
def test_entropy_and_kl_are_added_by_verl(mode: Any) -> None:
    padded = fixed_batch()
    config = config_for(DRPO, mode)
    object.__setattr__(config, "entropy_coeff", 0.01)
    object.__setattr__(config, "use_kl_loss", True)
    entropy = torch.full_like(padded.logprobs, 0.5)
    reference = padded.proximal_logprobs
    loss, metrics, gradient = through_ppo_loss(config, padded, entropy=entropy, ref_log_prob=reference)

    leaf = padded.logprobs.clone().requires_grad_(True)
    kl = agg_loss(
        kl_penalty(leaf, reference, config.kl_loss_type), padded.mask, config.loss_agg_mode, **config.global_batch_info
    )
    (of_kl,) = torch.autograd.grad(kl, leaf)
    expected = parity.reference(DRPO, padded, mode) + config.kl_loss_coef * of_kl
    assert parity.difference(gradient, expected) < 1e-6
    ours = metrics["actor/pg_loss"].aggregate()
    parts = ours - 0.01 * metrics["actor/entropy_loss"].aggregate() + config.kl_loss_coef * float(kl)
    assert float(loss) == pytest.approx(parts, rel=1e-9)
    assert metrics["actor/entropy_loss"].aggregate() > 0


def test_metrics_are_means_that_every_micro_batch_has() -> None:
    padded = fixed_batch()
    config = config_for(DRPO, "token_mean")
    names = set()
    for rows in padded.micro_batches(8):
        _, metrics = called(config, rows)
        names.add(tuple(metrics))
        assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    assert len(names) == 1, "verl stops when a rank or a micro-batch lacks a metric"
    # verl reduces a list by the words in its name
    assert not [name for name in names.pop() if "max" in name or "min" in name]


def test_metrics_say_what_diagnose_does() -> None:
    padded = fixed_batch()
    _, metrics = called(config_for(DRPO, "token_mean"), padded)
    batch = drpo.TokenBatch.from_padded(padded.logprobs, padded.behavior_logprobs, padded.advantages, padded.mask)
    found = drpo.diagnose(batch, 0.15, drpo.make_objective("drpo"))
    for name in ("ratio", "shift", "beyond_delta", "diverging_share", "mismatch", "k3_kl"):
        assert metrics[f"drpo/{name}"] == pytest.approx(found[name].item())
    for name in ("corrective_share", "diverging_share", "masked_share", "beyond_delta_positive"):
        assert metrics[f"drpo/{name}"] == pytest.approx(float(found[name].sum) / len(batch))
    assert metrics["drpo/corrective_share_positive"] + metrics["drpo/corrective_share_negative"] == pytest.approx(
        metrics["drpo/corrective_share"]
    )
    assert metrics["drpo/anchor_is_rollout"] == 1.0


def test_metrics_go_through_verls_own_averages() -> None:
    padded = fixed_batch()
    config = config_for(DRPO, "token_mean")
    per_rank = []
    for rank in padded.micro_batches(2):
        parts = [through_ppo_loss(config, rows)[1]["drpo/shift"] for rows in rank.micro_batches(2)]
        gathered = parts[0].init_list()
        for part in parts:
            gathered.extend(part)
        per_rank.append(gathered)
    shifts = [called(config, rows)[1]["drpo/shift"] for rows in padded.micro_batches(4)]
    assert Metric.aggregate_dp(per_rank) == pytest.approx(np.mean(shifts))


def test_recomputed_anchor_is_named_in_the_metrics() -> None:
    config = composed(
        ["actor_rollout_ref.actor.policy_loss.behavior=recomputed", "algorithm.rollout_correction.bypass_mode=false"]
    )
    _, metrics = called(instantiated(config, mismatch_limit=100.0), fixed_batch())
    assert metrics["drpo/anchor_is_rollout"] == 0.0


def test_a_micro_batch_of_padding_rows_counts_nothing() -> None:
    padded = fixed_batch()
    empty = replace(padded, mask=torch.zeros_like(padded.mask))
    config = config_for(DRPO, "token_mean")
    leaf = padded.logprobs.clone().requires_grad_(True)
    total, metrics = called(config, replace(empty, logprobs=leaf))
    # a rank without tokens still has to take part in the backward pass of the others
    (gradient,) = torch.autograd.grad(total, leaf)
    assert float(total) == 0.0 and not gradient.any()
    assert set(metrics) == set(called(config, padded)[1])


def test_weights_of_verls_correction_are_applied_as_its_own_losses_do() -> None:
    padded = fixed_batch()
    weights = torch.rand(padded.mask.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    config = config_for({"name": "surrogate"}, "token_mean")
    _, _, gradient = through_ppo_loss(config, padded, rollout_is_weights=weights)
    expected = parity.reference({"name": "surrogate"}, padded, "token_mean") * weights
    assert parity.difference(gradient, expected) < 1e-6


def test_keywords_of_a_later_verl_do_no_harm() -> None:
    config, padded = config_for(DRPO, "token_mean"), fixed_batch()
    assert called(config, padded, something_new=None)[0] == called(config, padded)[0]


@pytest.mark.parametrize(
    ("theirs", "overrides", "ours"),
    [
        (
            "vanilla",
            {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 3.0},
            {"name": "ppo", "ratio_low": 0.2, "ratio_high": 0.28, "dual_clip": 3.0},
        ),
        (
            "dppo_tv",
            {"clip_ratio_low": 0.15, "clip_ratio_high": 0.15, "clip_ratio_c": 20.0},
            {"name": "dppo_tv", "delta": 0.15, "ratio_cap": 20.0},
        ),
    ],
)
@pytest.mark.parametrize("mode", ["token_mean", "sequence_sum"])
def test_verls_own_loss_has_the_same_gradient(theirs: str, overrides: dict, ours: dict, mode: Any) -> None:
    scale = [f"actor_rollout_ref.actor.loss_scale_factor={HORIZON}"] if mode == "sequence_sum" else []
    agg = {"token_mean": "token-mean", "sequence_sum": "seq-mean-token-sum-norm"}[mode]
    config = composed(
        [
            f"actor_rollout_ref.actor.policy_loss.loss_mode={theirs}",
            f"actor_rollout_ref.actor.loss_agg_mode={agg}",
            *scale,
            *(f"actor_rollout_ref.actor.{key}={value}" for key, value in overrides.items()),
        ],
        preset=(),
    )
    padded = fixed_batch()
    gradient = make_path().gradient_with(instantiated(config), padded, 2)
    assert parity.difference(gradient, parity.reference(ours, padded, mode)) < 1e-6
    assert parity.difference(gradient, VerlPath().gradient(ours, padded, mode)) < 1e-6


def test_a_sequence_sum_without_a_factor_would_depend_on_the_split() -> None:
    """Why it is refused: verl's own loss, the same batch, one and four micro-batches."""
    config = instantiated(composed(["actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm"], preset=()))
    lengths = fixed_batch().mask.clone()
    lengths[4:, 10:] = False
    padded = replace(fixed_batch(), mask=lengths)
    whole, split = (make_path().gradient_with(config, padded, count) for count in (1, 4))
    assert parity.difference(split, whole) > 0.1


def test_an_objective_over_the_whole_update() -> None:
    padded = fixed_batch()
    path, settings = make_path(), {"name": "m2po"}
    expected = parity.reference(settings, padded, "token_mean")
    assert parity.difference(path.gradient(settings, padded, "token_mean"), expected) < 1e-6
    with pytest.raises(ConfigError, match="ppo_micro_batch_size_per_gpu = ppo_mini_batch_size"):
        path.gradient(settings, padded, "token_mean", 2)
    with pytest.raises(ConfigError, match="decides over all tokens"):
        VerlPath(ranks=2).gradient(settings, padded, "token_mean")


def test_the_first_call_stops_at_another_policys_logprobs(caplog: pytest.LogCaptureFixture) -> None:
    padded = fixed_batch()
    with pytest.raises(MismatchError, match="temperature"):
        called(config_for(DRPO, "token_mean", mismatch_limit=0.1), padded)
    near = replace(padded, behavior_logprobs=(padded.logprobs - 0.05))
    config = config_for(DRPO, "token_mean", mismatch_limit=0.1)
    empty = replace(padded, mask=torch.zeros_like(padded.mask))
    called(config, empty)
    with pytest.raises(MismatchError):
        called(config, padded)
    called(config, near)
    assert caplog.text.count("anchor: the rollout policy") == 1
    called(config, padded)  # later ones are what training is about
    called(config, near)
    assert caplog.text.count("anchor: the rollout policy") == 1


def test_bad_numbers_are_named_as_verl_names_them() -> None:
    padded = fixed_batch()
    for value in (float("nan"), float("-inf")):
        broken = padded.behavior_logprobs.clone()
        broken[:, :3] = value
        with pytest.raises(DataError, match=r"verl: .* tokens have no log μ"):
            called(config_for(DRPO, "token_mean"), replace(padded, behavior_logprobs=broken))


def test_the_loss_without_its_section() -> None:
    config = instantiated(composed(["actor_rollout_ref.actor.policy_loss.loss_mode=drpo"], preset=()))
    with pytest.raises(ConfigError, match="rollout_anchored"):
        called(config, fixed_batch())


def test_a_config_that_has_no_such_section() -> None:
    """verl's distillation calls a policy loss with a configuration of its own."""
    with pytest.raises(ConfigError, match="without its configuration"):
        get_policy_loss_fn("drpo")(None, None, None, None, "token-mean", DistillationLossConfig())
