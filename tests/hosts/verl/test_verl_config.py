"""Our section of verl's configuration, through Hydra and into the workers; and everything that it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from ray import cloudpickle
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.workers.config import PolicyLossConfig

import drpo
from drpo.integrations.verl import DRPOPolicyLossConfig
from drpo.integrations.verl_plugin.checks import HOST_SETTINGS, OTHER_LOSSES, OTHER_LOSSES_SECTION, explicit_overrides
from drpo.integrations.verl_plugin.composition import PRESET, SECTION, actor_config, composed

ROLLOUT = "actor_rollout_ref.rollout"
ACTOR = "actor_rollout_ref.actor"
CORRECTION = "algorithm.rollout_correction"
RECOMPUTED = (f"{SECTION}.behavior=recomputed", f"{CORRECTION}.bypass_mode=false")


def plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=True)


def validated(*overrides: str, preset: Any = PRESET, name: str = "ppo_trainer") -> Any:
    """As ``main_ppo`` does on the driver; the ActorConfig."""
    config = composed(overrides, preset, name)
    validate_config(config, use_reference_policy=False, use_critic=False)
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)


def refusal(*overrides: str, preset: Any = PRESET) -> str:
    with pytest.raises(InstantiationException) as caught:
        validated(*overrides, preset=preset)
    cause = caught.value.__cause__
    assert isinstance(cause, drpo.errors.ConfigError), cause
    assert str(cause)[:40] in re.sub(r"\\(.)", r"\1", str(caught.value)), "Hydra hides the message"
    return str(cause)


@pytest.mark.parametrize("name", ["ppo_trainer", "ppo_megatron_trainer"])
def test_the_preset_is_the_overrides_that_are_documented(name: str) -> None:
    assert plain(composed(preset=PRESET, name=name)) == plain(composed(preset=explicit_overrides(), name=name))


def test_the_preset_leaves_every_choice_to_the_user() -> None:
    ours, theirs = plain(composed()), plain(composed(preset=()))
    for config in (ours, theirs):
        del config["actor_rollout_ref"]["actor"]["policy_loss"]
        del config["algorithm"]["rollout_correction"]["bypass_mode"]
    assert ours == theirs


def test_the_other_losses_knobs_are_at_what_verl_ships() -> None:
    actor = composed(preset=()).actor_rollout_ref.actor
    assert {name: actor[name] for name in OTHER_LOSSES} == OTHER_LOSSES
    shipped = plain(actor.policy_loss)
    assert {name: shipped[name] for name in OTHER_LOSSES_SECTION} == OTHER_LOSSES_SECTION
    assert set(shipped) == {"_target_", "loss_mode", *OTHER_LOSSES_SECTION}, "verl has a new setting to check"


@pytest.mark.parametrize("name", ["ppo_trainer", "ppo_megatron_trainer"])
def test_objective_and_parameters_arrive_in_a_worker(name: str) -> None:
    config = composed(
        [
            f"{SECTION}.objective=grpo",
            f"+{SECTION}.parameters={{ratio_low: 0.3, modifiers: [{{name: opsm, kl_max: 0.5}}]}}",
        ],
        name=name,
    )
    OmegaConf.resolve(config)  # the task runner does so before it makes workers
    sent = cloudpickle.loads(cloudpickle.dumps(config.actor_rollout_ref))  # pyright: ignore[reportPrivateImportUsage]
    section = omega_conf_to_dataclass(sent.actor).policy_loss
    assert isinstance(section, DRPOPolicyLossConfig)
    expected = drpo.make_objective("grpo", ratio_low=0.3, modifiers=[{"name": "opsm", "kl_max": 0.5}])
    assert section.running.objective == expected
    assert section.rollout_correction["bypass_mode"] is True
    assert section.host["top_p"] == 1 and set(section.host) == set(HOST_SETTINGS)


@pytest.mark.parametrize("name", sorted(drpo.OBJECTIVES))
def test_every_objective_is_reached_or_refused_with_the_reason(name: str) -> None:
    needs = drpo.make_objective(name).needs
    if not needs:
        assert actor_config(objective=name).policy_loss.running.objective == drpo.make_objective(name)
        return
    with pytest.raises(InstantiationException, match=f"needs {needs[0]}.*which verl does not hand to a loss"):
        actor_config(objective=name)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"detla": 0.1}, "Did you mean 'delta'"),
        ({"delta": -1}, "delta must be"),
        ({"clip_ratio": 0.2}, "no parameter 'clip_ratio'"),
        ({"anchor": "proximal"}, "needs proximal_logprobs"),
        ({"anchor": "proximal", "modifiers": ["tis"]}, "needs proximal_logprobs"),
        ({"modifiers": ["entropy_top"]}, "needs entropy"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InstantiationException, match=re.escape(said).replace("'", r"\\*'")):
        actor_config(parameters=parameters)


def test_accepted() -> None:
    assert validated().policy_loss.behavior == "rollout"
    assert validated(*RECOMPUTED).policy_loss.behavior == "recomputed"
    validated(*RECOMPUTED, "trainer.use_v1=false", f"{ROLLOUT}.calculate_log_probs=false")
    validated(f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm", f"{ACTOR}.loss_scale_factor=1024")
    validated(f"{ROLLOUT}.top_k=0", f"{ROLLOUT}.temperature=0.7", "algorithm.norm_adv_by_std_in_grpo=false")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([f"{CORRECTION}.bypass_mode=false"], "bypass_mode=true. Set it, or say"),
        (["algorithm.rollout_correction=null"], "rollout_correction not given"),
        ([f"{SECTION}.behavior=recomputed"], "Set bypass_mode=false"),
        ([f"{SECTION}.behavior=rolout"], "Did you mean 'rollout'"),
        (["trainer.use_v1=false"], "Set trainer.use_v1=true"),
        ([f"{ROLLOUT}.calculate_log_probs=false"], "calculate_log_probs=true"),
        ([f"{ROLLOUT}.logprobs_mode=raw_logprobs"], "before the temperature"),
        ([f"{ROLLOUT}.logprobs_mode=null"], "Set processed_logprobs"),
        ([f"{CORRECTION}.rollout_is=token"], "rollout_is=token would be ignored"),
        ([f"{CORRECTION}.rollout_rs=token_k1"], "rollout_rs=token_k1 would be ignored"),
        ([f"{CORRECTION}.loss_type=reinforce"], "loss_type=reinforce"),
        ([f"{ROLLOUT}.top_p=0.95"], "Set top_p=1.0"),
        ([f"{ROLLOUT}.top_k=50"], "Set top_k=-1"),
        ([*RECOMPUTED, f"{ROLLOUT}.top_p=0.95"], "Set top_p=1.0"),
        ([f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm"], "loss_scale_factor=<"),
        ([f"{SECTION}.loss_mode=vanilla"], "objective=drpo would be ignored"),
        ([f"{SECTION}.mismatch_limit=0"], "mismatch_limit must be"),
        ([f"+{SECTION}.host.top=1"], "no setting 'top'"),
        ([f"~{SECTION}.host.top_p"], "host.top_p not given"),
        ([f"{ACTOR}.clip_ratio=0.3"], "would be ignored. Leave it at 0.2"),
        ([f"{ACTOR}.clip_ratio_low=0.3"], "would be ignored. Leave it at 0.2"),
        ([f"{ACTOR}.clip_ratio_high=0.28"], "would be ignored. Leave it at 0.2"),
        ([f"{ACTOR}.clip_ratio_c=10"], "would be ignored. Leave it at 3.0"),
        ([f"{ACTOR}.tau_pos=2.0"], "would be ignored. Leave it at 1.0"),
        ([f"{ACTOR}.tau_neg=2.0"], "would be ignored. Leave it at 1.05"),
        *[([f"{SECTION}.{name}=0.7"], f"{name}=0.7 is for another loss") for name in OTHER_LOSSES_SECTION],
    ],
)
def test_refused_on_the_driver(overrides: list[str], said: str) -> None:
    assert said in refusal(*overrides)


def test_without_what_the_preset_shows() -> None:
    bare = [
        f"{SECTION}._target_=drpo.integrations.verl.DRPOPolicyLossConfig",
        f"{SECTION}.loss_mode=drpo",
        f"{CORRECTION}.bypass_mode=true",
    ]
    said = refusal(preset=bare)
    assert "hydra.searchpath=[pkg://drpo.integrations.verl_presets]" in said and "+drpo=rollout_anchored" in said


def test_verl_alone_stays_as_it_is() -> None:
    assert type(validated(preset=()).policy_loss) is PolicyLossConfig
