"""What SkyRL's own configuration accepts, and everything that is refused before a run starts."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from skyrl.train.config import AlgorithmConfig, SkyRLTrainConfig, make_config

from drpo.errors import ConfigError
from drpo.integrations.skyrl import IGNORED, DRPOAlgorithmConfig, check
from drpo.integrations.skyrl.entry import DRPOTrainer, configuration

CONFIG = make_config(algorithm_cls=DRPOAlgorithmConfig)
ALGORITHM = "trainer.algorithm"
SAMPLING = "generator.sampling_params"
ENGINE = "generator.inference_engine"
#: Since 0.4.0: sample-support replay, and prefill and decode engines with options of their own.
REPLAYS = hasattr(AlgorithmConfig(), "enable_sample_support_replay")
since_0_4 = pytest.mark.skipif(not REPLAYS, reason="SkyRL has no sample-support replay and no role options before 0.4")


def made(*arguments):
    cfg = CONFIG.from_cli_overrides(list(arguments))
    check(cfg)
    return cfg


def test_objective_and_parameters_come_from_the_command_line():
    cfg = made(
        f"{ALGORITHM}.objective=grpo",
        f"{ALGORITHM}.parameters.ratio_high=0.3",
        f"{ALGORITHM}.parameters.anchor=proximal",
        f"{ALGORITHM}.parameters.modifiers=[tis]",
    )
    objective = cfg.trainer.algorithm.make_objective()
    settings = objective.settings()
    assert (settings["name"], settings["ratio_high"], settings["anchor"]) == ("grpo", 0.3, "proximal")
    assert [modifier["name"] for modifier in settings["modifiers"]] == ["tis"]
    assert cfg.trainer.algorithm.policy_loss_type == "drpo"
    assert cfg.trainer.algorithm.temperature == 1.0


def test_the_entry_script_accepts_what_skyrl_validates():
    cfg = configuration(["trainer.logger=console", f"{ALGORITHM}.parameters.delta=0.2"])
    assert cfg.trainer.algorithm.make_objective().settings()["delta"] == 0.2


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("objective=dpro", "Did you mean 'drpo'"),
        ("parameters.dleta=0.1", "no parameter 'dleta'"),
        ("objective=mdpo", "not homogeneous in the advantage"),
        ("objective=dppo_topk_tv", "needs topk_logprobs"),
        ("parameters.modifiers=[entropy_top]", "needs entropy"),
        ("policy_loss_type=dppo", "objective and parameters would be ignored"),
        ("eps_clip_low=0.1", "eps_clip_low"),
        ("eps_clip_high=0.28", "eps_clip_high"),
        ("clip_ratio_c=4", "clip_ratio_c"),
        ("use_tis=true", "use_tis"),
        ("off_policy_correction.tis_ratio_type=token", "off_policy_correction"),
        ("off_policy_correction.token_mask_is_threshold_high=2", "off_policy_correction"),
        ("dppo.loss_type=tv", "dppo"),
        ("cispo.cispo_eps_clip_high=3", "cispo"),
        ("sapo.tau_pos=2", "sapo"),
    ],
)
def test_algorithm_options_are_refused(argument, words):
    with pytest.raises((ConfigError, ValueError), match=words):
        made(f"{ALGORITHM}.{argument}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([f"{SAMPLING}.logprobs=null"], "logprobs=null.*Set it to 1"),
        ([f"{SAMPLING}.top_p=0.9"], "top_p=0.9"),
        ([f"{SAMPLING}.top_k=20"], "top_k=20"),
        ([f"{SAMPLING}.min_p=0.1"], "min_p=0.1"),
        ([f"{SAMPLING}.repetition_penalty=1.1"], "repetition_penalty=1.1"),
        ([f"{SAMPLING}.additional_kwargs.logit_bias=1"], "logit_bias"),
        ([f"{SAMPLING}.temperature=0.7"], "logprobs_mode=processed_logprobs"),
        ([f"{SAMPLING}.temperature=0.7", f"{ALGORITHM}.temperature=1.0"], "two temperatures"),
        (["generator.use_conversation_multi_turn=false"], "log-probability 0"),
        (["generator.use_conversation_multi_turn=false", "generator.max_turns=3"], "log-probability 0"),
        ([f"{ALGORITHM}.objective=m2po"], "micro_train_batch_size_per_gpu=1280"),
        ([f"{ALGORITHM}.objective=minirl", "trainer.fully_async.enabled=true"], "asynchronous"),
    ],
)
def test_runs_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        made(*arguments)


def test_what_the_refusals_ask_for_is_accepted():
    engine = "generator.inference_engine.engine_init_kwargs"
    made(f"{SAMPLING}.temperature=0.7", f"{engine}.logprobs_mode=processed_logprobs")
    made(f"{SAMPLING}.top_k=0", "generator.use_conversation_multi_turn=false", "generator.batched=true")
    made(
        f"{ALGORITHM}.objective=m2po",
        "trainer.placement.policy_num_gpus_per_node=1",
        "generator.n_samples_per_prompt=2",
        "trainer.policy_mini_batch_size=4",
        "trainer.micro_train_batch_size_per_gpu=8",
    )


RECORDED = f"{ENGINE}.enable_return_sample_support_set=true"
REPLAYED = f"{ALGORITHM}.enable_sample_support_replay=true"


@since_0_4
@pytest.mark.parametrize("option", ["top_p=0.9", "min_p=0.1", "top_p=1.0"])
@pytest.mark.parametrize("temperature", ["1.0", "0.7"])
def test_truncated_sampling_is_exact_with_replay(option, temperature):
    """The trainer renormalizes π over the recorded support, and SkyRL asks vLLM for the processed log μ."""
    made(RECORDED, REPLAYED, f"{SAMPLING}.top_k=20", f"{SAMPLING}.{option}", f"{SAMPLING}.temperature={temperature}")


@since_0_4
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([f"{SAMPLING}.top_k=20"], "enable_return_sample_support_set=true and .*enable_sample_support_replay=true"),
        ([f"{SAMPLING}.top_k=20", RECORDED], "top_k=20.*enable_sample_support_replay=true"),
        (
            [f"{SAMPLING}.top_k=20", RECORDED, REPLAYED, f"{ENGINE}.engine_init_kwargs.logprobs_mode=raw_logprobs"],
            "logprobs_mode=raw_logprobs",
        ),
    ],
)
def test_truncated_sampling_without_replay_is_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        made(*arguments)


@pytest.mark.skipif(REPLAYS, reason="SkyRL has the switches")
def test_no_switch_is_named_that_skyrl_does_not_have():
    with pytest.raises(ConfigError) as refused:
        made(f"{SAMPLING}.top_k=20")
    assert "replay" not in str(refused.value)


@since_0_4
def test_prefill_and_decode_engines_have_options_of_their_own():
    """Each role's options take the place of engine_init_kwargs, so that each has to name the mode."""
    modes = [f"{ENGINE}.{role}_init_kwargs.logprobs_mode=processed_logprobs" for role in ("prefill", "decode")]
    made(f"{SAMPLING}.temperature=0.7", *modes)
    with pytest.raises(ConfigError, match=r"decode_init_kwargs\.logprobs_mode=processed_logprobs"):
        made(f"{SAMPLING}.temperature=0.7", modes[0])


@pytest.mark.parametrize("mode", ["raw_logits", "processed_logits"])
def test_logits_are_no_log_probabilities(mode):
    with pytest.raises(ConfigError, match=f"logprobs_mode={mode}"):
        made(f"{ENGINE}.engine_init_kwargs.logprobs_mode={mode}")


def test_a_configuration_of_skyrls_own_class_is_refused():
    with pytest.raises(ConfigError, match="make_config"):
        check(SkyRLTrainConfig.from_cli_overrides([]))


def test_the_synchronous_entry_script_refuses_the_asynchronous_setting():
    with pytest.raises(ConfigError, match="FullyAsyncRayPPOTrainer"):
        configuration(["trainer.fully_async.enabled=true"])


def test_every_option_of_skyrls_losses_is_considered():
    """A new release with another option ends here: implement it, ignore it knowingly, or refuse it."""
    hosts = {
        "policy_loss_type",
        "advantage_estimator",
        "kl_ctrl",
        "kl_estimator_type",
        "use_kl_in_reward",
        "use_kl_loss",
        "kl_loss_coef",
        "use_entropy_loss",
        "entropy_loss_coef",
        "temperature",
        "advantage_batch_normalize",
        "value_head_prefix",
        "loss_reduction",
        "grpo_norm_by_std",
        "zero_variance_filter",
        "zero_variance_filter_tol",
        "lambd",
        "gamma",
        "value_clip",
        "dynamic_sampling",
        "max_seq_len",
        *(["enable_sample_support_replay"] if REPLAYS else []),
    }
    assert set(AlgorithmConfig.__dataclass_fields__) == hosts | set(IGNORED)


@pytest.mark.parametrize(
    ("arguments", "logprobs", "skipped"),
    [
        ([], "given", True),
        ([], None, False),
        ([f"{ALGORITHM}.objective=minirl"], "given", False),
        ([f"{ALGORITHM}.use_kl_in_reward=true", f"{ALGORITHM}.use_kl_loss=false"], "given", False),
    ],
)
def test_old_log_probabilities_are_computed_only_where_they_are_read(arguments, logprobs, skipped):
    trainer = object.__new__(DRPOTrainer)
    trainer.cfg = SimpleNamespace(trainer=made(*arguments).trainer)
    assert trainer._skip_policy_forward({"rollout_logprobs": logprobs}) is skipped


def test_python_3_11_is_told_what_to_do():
    if sys.version_info >= (3, 12):
        pytest.skip("SkyRL imports on this Python")
    run = subprocess.run([sys.executable, "-m", "drpo.integrations.skyrl"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("drpo.errors.ConfigError: SkyRL 0.3.0") and "Use Python 3.12" in last
