"""The loss inside Trinity with verl's workers: parity, ranks, micro-batches by tokens, what stops a run, metrics."""

import math
from types import SimpleNamespace

import pytest
import torch
from trinity.algorithm import POLICY_LOSS_FN
from trinity.common.config import Config
from trinity.common.config_validator import AlgorithmConfigValidator
from trinity.trainer.verl.losses import TrinityPolicyLoss
from verl.utils import seqlen_balancing
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

import drpo
from drpo.errors import ConfigError, DataError, DrpoWarning, MismatchError
from drpo.integrations.parity import (
    BEYOND_DEFAULTS,
    HORIZON,
    compare,
    difference,
    effect,
    fixed_batch,
    reference,
    tolerance,
)
from drpo.integrations.trinity import NAME, DRPOPolicyLoss
from drpo.integrations.trinity.parity import algorithm, make_path, model_output, training_batch

PATH = make_path()


@pytest.mark.parametrize("mode", PATH.modes)
@pytest.mark.parametrize("name", PATH.objectives)
def test_parity(name, mode):
    assert compare(PATH, {"name": name}, mode).worst <= tolerance(PATH)


@pytest.mark.parametrize("settings", BEYOND_DEFAULTS)
def test_parameters_and_modifiers_arrive(settings):
    assert compare(PATH, settings, "token_mean").worst <= tolerance(PATH)
    assert effect(settings) > 0.01


@pytest.mark.parametrize("mode", PATH.modes)
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_do_not_change_the_gradient(mode, ranks):
    found, _ = PATH.step(algorithm({"name": "drpo"}, mode), fixed_batch(), 2, ranks)
    assert difference(found, reference({"name": "drpo"}, fixed_batch(), mode)) <= tolerance(PATH)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_the_sum_of_a_sequence_without_a_horizon(micro_batches):
    config = algorithm({"name": "drpo"}, "token_mean", loss_agg_mode="seq-mean-token-sum")
    found, _ = PATH.step(config, fixed_batch(), micro_batches)
    expected = reference({"name": "drpo"}, fixed_batch(), "sequence_sum") * HORIZON
    assert difference(found, expected) <= tolerance(PATH)


class Engine(FSDPEngine):
    """verl's engine without a model: what it does around the forward pass, whose result is ``logprobs``."""

    ulysses_sequence_parallel_size, ulysses_device_mesh = 1, None
    engine_config = SimpleNamespace(use_no_sync_for_gradient_accumulation=False)

    def __init__(self, logprobs):
        self.logprobs, self.calls = logprobs, 0

    def forward_step(self, micro_batch, loss_function, forward_only):
        self.calls += 1
        output = {"log_probs": model_output(self.logprobs, micro_batch)}
        loss, metrics = loss_function(model_output=output, data=micro_batch, dp_group=None)
        return loss, {"loss": loss.item(), "metrics": metrics}


@pytest.fixture
def one_process(monkeypatch, tmp_path):
    """A process group of one, and the CPU where verl asks for the current accelerator."""
    monkeypatch.setattr(transformer_impl, "get_device_id", lambda: "cpu")
    monkeypatch.setattr(seqlen_balancing, "get_device_name", lambda: "cpu")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("mode", PATH.modes)
def test_verls_engine_hands_over_the_size_of_the_update(mode, one_process):
    """Its own count of tokens and ranks, and its own micro-batches by tokens, which reorder the rows."""
    padded = fixed_batch()
    data = training_batch(padded, 1, tokens=-1, sequences=len(padded.mask), ranks=-1)
    tu.assign_non_tensor(data, use_dynamic_bsz=True, max_token_len_per_gpu=40)
    engine = Engine(padded.logprobs.clone().requires_grad_(True))
    engine.forward_backward_batch(data, TrinityPolicyLoss(algorithm({"name": "drpo"}, mode)))
    assert engine.calls > 2
    assert engine.logprobs.grad is not None
    assert difference(engine.logprobs.grad, reference({"name": "drpo"}, padded, mode)) <= tolerance(PATH)


def test_trinitys_own_loss_depends_on_the_micro_batches():
    """Why ours does not leave the division to Trinity: with verl's workers nothing scales a micro-batch."""
    config = algorithm({"name": "grpo"}, "token_mean")
    config.policy_loss_fn, config.policy_loss_fn_args = "ppo", {"clip_range": 0.2, "loss_agg_mode": "token-mean"}
    sizes = [float(PATH.step(config, fixed_batch(), count)[0].norm()) for count in (1, 4)]
    assert sizes[1] > 2 * sizes[0]


def test_an_objective_over_the_whole_update_runs_in_one_micro_batch_only():
    expected = reference({"name": "m2po"}, fixed_batch(), "token_mean")
    assert difference(PATH.gradient({"name": "m2po"}, fixed_batch(), "token_mean"), expected) <= tolerance(PATH)
    for micro_batches, ranks in ((2, 1), (1, 2)):
        with pytest.raises(ConfigError, match="max_token_len_per_gpu"):
            PATH.step(algorithm({"name": "m2po"}, "token_mean"), fixed_batch(), micro_batches, ranks)


def test_a_rank_without_tokens_has_a_gradient_of_zero():
    padded = fixed_batch()
    padded.mask[:4] = False
    found, metrics = PATH.step(algorithm({"name": "drpo"}, "token_mean"), padded, ranks=2)
    assert difference(found, reference({"name": "drpo"}, padded, "token_mean")) <= tolerance(PATH)
    assert float(found[:4].abs().max()) == 0.0 and list(metrics[0]) == list(metrics[1])


def test_mu_is_the_explorers_whatever_is_recomputed():
    padded = fixed_batch()
    assert not torch.equal(padded.proximal_logprobs, padded.behavior_logprobs)
    _, (metrics,) = PATH.step(algorithm({"name": "drpo"}, "token_mean"), padded)
    batch = drpo.TokenBatch.from_padded(padded.logprobs, padded.behavior_logprobs, padded.advantages, padded.mask)
    for name in ("beyond_delta", "mismatch", "ratio"):
        measured = drpo.diagnose(batch)[name]
        assert metrics[f"actor/drpo/{name}"] == pytest.approx(float(measured.sum / measured.count), rel=1e-6)
    assert metrics["actor/drpo/left_out_share"] == 0.0


def test_log_pi_old_that_is_log_mu_stops_an_objective_that_needs_it():
    padded = fixed_batch()
    padded.proximal_logprobs.copy_(padded.behavior_logprobs)
    with pytest.raises(ConfigError, match="bypass_old_logprobs: false"):
        PATH.gradient({"name": "minirl"}, padded, "token_mean")
    PATH.gradient({"name": "drpo"}, padded, "token_mean")


def test_another_policys_log_probabilities_stop_the_run():
    with pytest.raises(MismatchError, match=r"Trinity-RFT: .*policy_loss_fn_args\.mismatch_limit"):
        PATH.step(algorithm({"name": "drpo"}, "token_mean", mismatch_limit=0.1), fixed_batch())


def test_only_the_first_micro_batch_is_compared():
    padded = fixed_batch()
    padded.logprobs[:2] = padded.behavior_logprobs[:2]
    PATH.step(algorithm({"name": "drpo"}, "token_mean", mismatch_limit=0.1), padded, micro_batches=4)


def test_tokens_without_mu_are_left_out_up_to_a_limit():
    padded = fixed_batch()
    padded.behavior_logprobs[0, 3] = math.nan
    found, (metrics,) = PATH.step(algorithm({"name": "drpo"}, "token_mean"), padded)
    assert float(found[0, 3]) == 0.0 and bool(found.isfinite().all())
    assert metrics["actor/drpo/left_out_share"] == pytest.approx(1 / float(padded.mask.sum()))
    padded.behavior_logprobs[0] = math.nan
    with pytest.raises(DataError, match="Trinity-RFT: 24 of"):
        PATH.gradient({"name": "drpo"}, padded, "token_mean")


def test_advantages_that_never_vary_are_reported():
    padded = fixed_batch()
    padded.advantages.zero_()
    loss = DRPOPolicyLoss(loss_agg_mode="token-mean", mismatch_limit=100.0)
    values = {"rollout_log_probs": padded.behavior_logprobs, "old_log_probs": padded.behavior_logprobs}
    values |= {"advantages": padded.advantages.unsqueeze(1).expand(padded.mask.shape), "response_mask": padded.mask}
    with pytest.warns(DrpoWarning, match="every advantage is 0"):
        for _ in range(3):
            loss(padded.logprobs, **values, batch_num_tokens=110, global_batch_size=8, dp_size=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_agg_mode": None}, "has no loss_agg_mode"),
        ({"loss_agg_mode": "token_mean"}, "must be one of token-mean"),
        ({"loss_agg_mode": "seq-mean-token-sum-norm"}, "needs algorithm.policy_loss_fn_args.horizon"),
        ({"horizon": 32}, "would ignore it"),
        ({"clip_range": 0.2}, "has no clip_range"),
        ({"objective": "dropo"}, "drpo"),
        ({"parameters": {"detla": 0.1}}, "delta"),
        ({"mismatch_limit": 0.0}, "mismatch_limit must be"),
        ({"parameters": {"modifiers": ["entropy_top"]}}, "needs entropy"),
        ({"backend": "tinker"}, "token-mean is a mean over the tokens of each response"),
        ({"backend": "tinker", "loss_agg_mode": "seq-mean-token-mean", "objective": "m2po"}, "once a response"),
        ({"backend": "tinker", "loss_agg_mode": "seq-mean-token-mean", "objective": "minirl"}, "proximal_logprobs"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ConfigError, match=message):
        DRPOPolicyLoss(**{"loss_agg_mode": "token-mean", **arguments})


def test_an_older_verl_is_refused(monkeypatch):
    monkeypatch.setattr("drpo.integrations.trinity.version", lambda name: "0.7.1")
    with pytest.raises(ConfigError, match=r"verl 0\.7\.1"):
        DRPOPolicyLoss(loss_agg_mode="token-mean")


def validated(**algorithm_settings):
    """Trinity's own validator on ``algorithm``; what it fills in is what the trainer hands to the loss."""
    config = Config()
    config.algorithm.algorithm_type, config.algorithm.policy_loss_fn = "grpo", NAME
    for key, value in algorithm_settings.items():
        setattr(config.algorithm, key, value)
    AlgorithmConfigValidator().validate(config)
    return config.algorithm


def test_trinity_finds_the_class_by_its_path_and_fills_in_the_arguments():
    assert POLICY_LOSS_FN.get(NAME) is DRPOPolicyLoss
    loss = TrinityPolicyLoss(validated()).policy_loss_fn
    assert loss.objective.name == "drpo" and loss.reduction.mode == "token_mean"


def test_trinitys_loss_agg_mode_arrives_only_where_the_arguments_have_it():
    arguments = {"objective": "spo", "loss_agg_mode": "token-mean"}
    config = validated(policy_loss_fn_args=arguments, loss_agg_mode="seq-mean-token-mean")
    assert TrinityPolicyLoss(config).policy_loss_fn.reduction.mode == "sequence_mean"
    config = validated(policy_loss_fn_args={"objective": "spo"}, loss_agg_mode="seq-mean-token-mean")
    with pytest.raises(ConfigError, match="has no loss_agg_mode"):
        TrinityPolicyLoss(config)
