"""What DRPOTrainer would ignore or get wrong is an error that names the fix."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainingArguments
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
from trl_runs import PROMPTS, answer_length, make_config, make_trainer

from drpo.errors import ConfigError, DataError, MismatchError
from drpo.integrations.parity import fixed_batch
from drpo.integrations.trl import DRPOConfig, DRPOTrainer, InProcessRollouts, host
from drpo.integrations.trl.config import REFUSED
from drpo.integrations.trl.measured import MeasuredLoss
from drpo.integrations.trl.parity import inputs_of, table
from drpo.model.policy import load_policy

#: Options that TRL applies outside the loss, before or after it: rollouts, rewards, advantages, data, logging.
ELSEWHERE = {
    "model_init_kwargs",
    "trust_remote_code",
    "disable_dropout",
    "cast_lm_head_to_fp32",
    "num_generations",
    "num_generations_eval",
    "ds3_gather_for_generation",
    "shuffle_dataset",
    "pad_to_multiple_of",
    "generation_batch_size",
    "chat_template_kwargs",
    "cache_implementation",
    "use_vllm",
    "vllm_mode",
    "vllm_model_impl",
    "vllm_enable_sleep_mode",
    "vllm_server_base_url",
    "vllm_server_host",
    "vllm_server_port",
    "vllm_server_timeout",
    "vllm_group_port",
    "vllm_gpu_memory_utilization",
    "vllm_max_model_length",
    "vllm_tensor_parallel_size",
    "reward_weights",
    "multi_objective_aggregation",
    "scale_rewards",
    "mask_truncated_completions",
    "sync_ref_model",
    "ref_model_mixup_alpha",
    "ref_model_sync_steps",
    "max_tool_calling_iterations",
    "log_completions",
    "log_multimodal",
    "num_completions_to_print",
    "log_unique_prompts",
    "log_completions_hub_repo",
    "transformers_continuous_batching_config",
}
#: Options that the loss here reads.
IMPLEMENTED = {
    "router_aux_loss_coef",
    "max_completion_length",
    "steps_per_generation",
    "num_iterations",
    "temperature",
    "beta",
    "use_bias_correction_kl",
    "entropy_coef",
}
#: Refused by a rule of their own, tested below.
BY_RULE = {"generation_kwargs", "use_transformers_continuous_batching", "use_transformers_paged"}

#: A value of each refused option that is not its neutral one.
CHANGED: dict[str, Any] = {
    "loss_type": "dapo",
    "epsilon": 0.3,
    "epsilon_high": 0.28,
    "delta": 4.0,
    "importance_sampling_level": "sequence",
    "sapo_temperature_neg": 1.1,
    "sapo_temperature_pos": 1.1,
    "vespo_k_pos": 1.0,
    "vespo_lambda_pos": 1.0,
    "vespo_k_neg": 1.0,
    "vespo_lambda_neg": 1.0,
    "off_policy_mask_threshold": 0.5,
    "top_entropy_quantile": 0.2,
    "use_adaptive_entropy": True,
    "entropy_coef_min": 0.1,
    "entropy_coef_max": 0.5,
    "entropy_coef_delta": 0.1,
    "entropy_target": 1.0,
    "vllm_importance_sampling_correction": True,
    "vllm_importance_sampling_mode": "token_mask",
    "vllm_importance_sampling_cap": 2.0,
    "vllm_importance_sampling_clip_max": 2.0,
    "vllm_importance_sampling_clip_min": 0.1,
    "top_p": 0.9,
    "top_k": 50,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "vllm_structured_outputs_regex": "[0-9]+",
}


def test_every_option_of_trl_is_accounted_for() -> None:
    """An option that a new TRL brings fails here until somebody has read whether the loss uses it."""
    own = {f.name for f in dataclasses.fields(GRPOConfig)} - {f.name for f in dataclasses.fields(TrainingArguments)}
    assert own == ELSEWHERE | IMPLEMENTED | BY_RULE | REFUSED.keys()
    assert CHANGED.keys() == REFUSED.keys()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_option_of_trls_own_losses_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}=.* is not used by DRPOTrainer") as caught:
        make_config(**{name: CHANGED[name]})
    assert REFUSED[name] in str(caught.value)


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(ConfigError, match=r"(?s)loss_type='grpo'.*'sequence_mean'.*epsilon=0.1.*top_p=0.5"):
        make_config(loss_type="grpo", epsilon=0.1, top_p=0.5)


def test_the_neutral_values_are_not_refused() -> None:
    make_config(top_k=-1, min_p=0.0, top_p=1.0, repetition_penalty=1.0, vllm_importance_sampling_correction=False)


def test_a_greedy_key_of_generation_kwargs_is_refused() -> None:
    with pytest.raises(ConfigError, match="generation_kwargs: 'bad_words'"):
        make_config(generation_kwargs={"seed": 1, "bad_words": ["x"]})
    assert make_config(generation_kwargs='{"seed": 1}').generation_kwargs == {"seed": 1}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objective": "dpro"}, "Did you mean 'drpo'"),
        ({"objective_parameters": {"dleta": 0.1}}, "Did you mean 'delta'"),
        ({"objective_parameters": {"delta": -1}}, "delta must be"),
        ({"objective_parameters": "delta=0.2"}, "as JSON such as"),
        ({"objective_parameters": "[1]"}, "as JSON such as"),
        ({"objective": "dppo_topk_tv"}, "needs topk_logprobs"),
        ({"objective": "m2po", "gradient_accumulation_steps": 2}, "Set gradient_accumulation_steps=1"),
        ({"aggregation": "tokenmean"}, "Did you mean 'token_mean'"),
        ({"mismatch_limit": 0.0}, "mismatch_limit must be > 0"),
        ({"max_completion_length": None}, "divides by max_completion_length"),
    ],
)
def test_a_wrong_setting_names_the_right_one(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**settings)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "parts", "says"),
    [
        ({}, {"rollout_func": None}, "no μ: TRL's own generate returns no log-probabilities"),
        ({}, {"rollout_func": InProcessRollouts}, "pass InProcessRollouts()"),
        ({"use_vllm": True}, {"rollout_func": InProcessRollouts}, "pass InProcessRollouts()"),
        ({}, {"rollout_func": "InProcessRollouts"}, "must be callable with (prompts, trainer), got str"),
        ({"use_transformers_continuous_batching": True}, {"rollout_func": None}, "gives no log-probabilities"),
        ({"use_transformers_continuous_batching": True}, {}, "gives no log-probabilities"),
        ({}, {"tools": [len]}, "Use use_vllm=True with them"),
        ({}, {"environment_factory": dict}, "Use use_vllm=True with them"),
    ],
)
def test_a_run_in_which_mu_cannot_arrive_does_not_start(settings: dict, parts: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_trainer(make_config(num_iterations=2, **settings), **parts)
    assert says in str(caught.value)


def test_where_mu_would_come_from_vllm() -> None:
    """No vLLM here: the plug-in lets the configuration through, TRL then misses the package."""
    with pytest.raises(ImportError, match="vllm"):
        make_trainer(make_config(use_vllm=True), rollout_func=None)


def test_the_config_of_another_trainer_is_refused(tmp_path: Any) -> None:
    plain = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    for args in (plain, None):
        with pytest.raises(ConfigError, match=r"DRPOTrainer needs args=DRPOConfig\(…\)"):
            make_trainer(args)  # pyright: ignore[reportArgumentType]


def loss_of(trainer: DRPOTrainer, **changes: Any) -> torch.Tensor:
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    padded = fixed_batch()
    inputs = {**inputs_of(padded, padded.mask.sum().float()), **changes}
    leaf = padded.logprobs.clone().requires_grad_(True)
    return trainer._compute_loss(table(leaf), {k: v for k, v in inputs.items() if v is not None})


def test_a_mu_that_does_not_arrive_stops_the_run() -> None:
    trainer = make_trainer(make_config(num_iterations=2, mismatch_limit=1e9))
    with pytest.raises(ConfigError, match="sampling_per_token_logps: μ is missing, although rollout_func InProcess"):
        loss_of(trainer, sampling_per_token_logps=None)
    padded = fixed_batch()
    with pytest.raises(DataError, match="NaN stands for a token that vLLM gave no log-probability"):
        loss_of(trainer, sampling_per_token_logps=padded.behavior_logprobs.index_fill(1, torch.tensor([0]), torch.nan))


def test_a_mu_missing_at_dropped_tokens_alone_is_no_matter() -> None:
    trainer = make_trainer(make_config(num_iterations=2, mismatch_limit=1e9))
    assert bool(loss_of(trainer, sampling_per_token_logps=fixed_batch().filled(torch.nan).behavior_logprobs).isfinite())


def test_a_mu_of_another_policy_stops_the_run() -> None:
    trainer = make_trainer(make_config(num_iterations=2))
    with pytest.raises(MismatchError, match=r"(?s)above mismatch_limit=0\.1\. μ is from rollout_func.*temperature"):
        loss_of(trainer)


class AtAnotherTemperature(InProcessRollouts):
    """As a vLLM server in raw_logprobs mode: the log-probabilities are those before the temperature."""

    def __call__(self, prompts: Any, trainer: Any) -> dict[str, list]:
        trainer.temperature, right = 1.0, trainer.temperature
        try:
            return super().__call__(prompts, trainer)
        finally:
            trainer.temperature = right


def test_raw_logprobs_at_a_temperature_stop_a_real_run() -> None:
    trainer = make_trainer(make_config(temperature=2.0, num_iterations=2), rollout_func=AtAnotherTemperature())
    with pytest.raises(MismatchError, match="before temperature scaling"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"generation_kwargs": {"seed": 1}}, "InProcessRollouts would ignore it"),
        ({"cache_implementation": "static"}, "InProcessRollouts would ignore it"),
        ({"max_completion_length": None, "aggregation": "token_mean"}, "needs max_completion_length"),
    ],
)
def test_what_the_sampler_in_the_process_would_ignore(settings: dict, says: str) -> None:
    trainer = make_trainer(make_config(num_iterations=2, **settings))
    with pytest.raises(ConfigError) as caught:
        trainer.train()
    assert says in str(caught.value)


def test_a_trl_that_passes_something_unknown_is_refused() -> None:
    trainer = make_trainer(make_config(num_iterations=2, mismatch_limit=1e9))
    with pytest.raises(
        ConfigError, match=r"the loss is given new_mask, which it would ignore.*tested with TRL 1\.14\.1"
    ):
        loss_of(trainer, new_mask=torch.ones(1))
    with pytest.raises(ConfigError, match=r"the loss is not given advantages"):
        loss_of(trainer, advantages=None)


@pytest.mark.parametrize(
    ("method", "replacement", "says"),
    [
        ("_compute_loss", lambda self, model, inputs, scale: None, r"takes \(self, model, inputs, scale\)"),
        ("_get_per_token_logps_and_entropies", lambda self, model, ids: None, "takes no input_ids"),
        ("_compute_loss", None, "GRPOTrainer has no _compute_loss"),
    ],
)
def test_a_trl_with_another_signature_is_refused(
    monkeypatch: pytest.MonkeyPatch, method: str, replacement: Any, says: str
) -> None:
    monkeypatch.setattr(GRPOTrainer, method, replacement, raising=True)
    with pytest.raises(ConfigError, match=says) as caught:
        host.check_trl()
    assert "pip install 'trl>=1.14.1,<1.17'" in str(caught.value)


def test_a_trainer_that_another_package_put_in_its_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Unsloth does, whose compute_loss calls no _compute_loss."""
    monkeypatch.setattr(host, "GRPOTrainer", type("UnslothGRPOTrainer", (GRPOTrainer,), {"__module__": "Unsloth"}))
    with pytest.raises(ConfigError, match=r"Unsloth\.UnslothGRPOTrainer.*Import drpo\.integrations\.trl before"):
        host.check_trl()


def test_a_grpo_config_becomes_ours(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "per_device_train_batch_size": 8, "steps_per_generation": 4, "beta": 0.02}
    given = GRPOConfig(use_cpu=True, bf16=False, report_to="none", learning_rate=3e-5, **settings)
    made = DRPOConfig.from_grpo(given, objective="spo")
    different = {name for name, value in given.to_dict().items() if made.to_dict()[name] != value}
    assert different <= {"loss_type", "vllm_importance_sampling_correction"}
    assert made.objective == "spo" and made.steps_per_generation == 4 and made.beta == 0.02
    given.epsilon = 0.1
    with pytest.raises(ConfigError, match=r"epsilon=0\.1 is not used"):
        DRPOConfig.from_grpo(given)


def test_a_trainer_that_is_given_a_grpo_config_by_another_program() -> None:
    """As Axolotl does; docs/integrations/trl.md has this class."""

    class Trainer(DRPOTrainer):
        def __init__(self, *arguments: Any, args: Any, **keywords: Any):
            config = DRPOConfig.from_grpo(args, objective="drpo", objective_parameters={"delta": 0.2})
            super().__init__(*arguments, args=config, **keywords)

    given = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        per_device_train_batch_size=8,
        num_generations=2,
        max_completion_length=8,
        max_steps=1,
        num_iterations=2,
    )
    policy = load_policy("embedded:arithmetic", torch.device("cpu"))
    trainer = Trainer(
        policy.model,
        answer_length,
        args=given,
        processing_class=policy.tokenizer,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
        rollout_func=InProcessRollouts(),
    )
    trainer.train()
    assert trainer.state.global_step == 1 and trainer.objective.shift_bound == 0.2


def test_trl_overrides_are_few() -> None:
    """What a new TRL can change under us without a signature changing: keep it at the loss, the constructor, and a look
    at each rollout batch."""
    private = {
        "_fused_loss",
        "_loss_of_logprobs",
        "_forward",
        "_token_batch",
        "_under",
        "_aggregation",
        "_denominators",
        "_record",
        "_log_tokens",
        "_staleness",
        "_say_what_to_expect",
    }
    own = {name for name, value in vars(DRPOTrainer).items() if callable(value)} - private
    assert own == {"__init__", "_compute_loss", "_generate_and_score_completions"}
    shared = {name for name in vars(MeasuredLoss) if not name.startswith("__")}
    assert shared == {"start_measuring", "under_weights", "merge", "_check_mismatch"}
    assert not (private | shared | {"head_is_plain", "loss_path", "_token_log"}) & set(dir(GRPOTrainer))
    assert (
        not {f.name for f in dataclasses.fields(DRPOConfig)}
        - {f.name for f in dataclasses.fields(GRPOConfig)}
        - {
            "objective",
            "objective_parameters",
            "aggregation",
            "mismatch_limit",
            "log_tokens",
            "log_tokens_limit",
        }
    )
