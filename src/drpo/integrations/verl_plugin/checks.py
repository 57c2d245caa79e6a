"""What verl's configuration must say for a loss of ours to be what it claims (no verl is imported here).

verl shows a policy loss its tensors and the actor's section, and nothing of how the samples were drawn. The settings
that decide that are interpolated into our own section, where they are checked on the driver and in every worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drpo.errors import ConfigError, suggest

#: What selects our loss, as Hydra overrides.
PRESET = "'hydra.searchpath=[pkg://drpo.integrations.verl_presets]' +drpo=rollout_anchored"
SECTION = "actor_rollout_ref.actor.policy_loss"
TARGET = "drpo.integrations.verl.DRPOPolicyLossConfig"
#: What our section has to see of the rest: name → where it is set.
HOST_SETTINGS = {
    "use_v1": "trainer.use_v1",
    **{
        name: f"actor_rollout_ref.rollout.{name}" for name in ("calculate_log_probs", "logprobs_mode", "top_p", "top_k")
    },
    **{
        name: f"actor_rollout_ref.actor.{name}"
        for name in (
            "loss_agg_mode",
            "loss_scale_factor",
            "clip_ratio",
            "clip_ratio_low",
            "clip_ratio_high",
            "clip_ratio_c",
            "tau_pos",
            "tau_neg",
        )
    },
}
#: Knobs of verl's own losses, at the values that verl ships: anything else is meant for a loss that does not run.
OTHER_LOSSES = {
    "clip_ratio": 0.2,
    "clip_ratio_low": 0.2,
    "clip_ratio_high": 0.2,
    "clip_ratio_c": 3.0,
    "tau_pos": 1.0,
    "tau_neg": 1.05,
}
OTHER_LOSSES_SECTION = {
    "clip_cov_ratio": 0.0002,
    "clip_cov_lb": 1.0,
    "clip_cov_ub": 5.0,
    "kl_cov_ratio": 0.0002,
    "ppo_kl_coef": 0.1,
    "dro_beta": None,
}
#: What a loss of verl's that is recorded has to see of the rest: name → the value that is refused, and why.
RECORD_SETTINGS = {
    "use_v1": (
        False,
        "trainer.use_v1=false with bypass_mode=true: verl's legacy trainer then replaces loss_mode by its own bypass "
        "loss (verl issue 4912). Set trainer.use_v1=true, which is the default.",
    ),
    "calculate_log_probs": (
        False,
        "the rollout returns no log-probabilities, so that μ is missing. Set "
        "actor_rollout_ref.rollout.calculate_log_probs=true, which is the default.",
    ),
    "model_engine": (
        "megatron",
        "model_engine=megatron: with pipeline parallelism rank 0, which writes the log, computes no loss. Record with "
        "another engine.",
    ),
}
#: Where verl's old_log_probs come from.
BEHAVIORS = ("rollout", "recomputed")


def explicit_overrides() -> list[str]:
    """The preset as single Hydra overrides: the arguments of ``python -m verl.trainer.main_ppo`` that equal it."""
    seen = ",".join(f"{name}:${{{where}}}" for name, where in HOST_SETTINGS.items())
    return [
        f"{SECTION}._target_={TARGET}",
        f"{SECTION}.loss_mode=drpo",
        f"+{SECTION}.objective=drpo",
        f"+{SECTION}.parameters={{}}",
        f"+{SECTION}.behavior=rollout",
        f"+{SECTION}.mismatch_limit=0.1",
        f"+{SECTION}.rollout_correction=${{algorithm.rollout_correction}}",
        f"+{SECTION}.host={{{seen}}}",
        "algorithm.rollout_correction.bypass_mode=true",
    ]


def check_host(host: Mapping[str, Any] | None, rollout_correction: Mapping[str, Any] | None, behavior: str) -> None:
    """Refuse a verl configuration under which our loss would be something else than it says.

    Args:
        host: every name of :data:`HOST_SETTINGS` with its value.
        rollout_correction: verl's section of that name.
        behavior: one of :data:`BEHAVIORS`.

    Raises:
        ConfigError: settings that are not given, contradict each other, or would be ignored.
    """
    if behavior not in BEHAVIORS:
        raise ConfigError(f"{SECTION}.behavior: unknown {behavior!r}.{suggest(behavior, BEHAVIORS)}")
    missing = sorted(set(HOST_SETTINGS) - set(host or {}))
    if host is None or missing or not isinstance(rollout_correction, Mapping):
        what = "rollout_correction" if not missing else "host." + ", host.".join(missing)
        raise ConfigError(
            f"{SECTION} does not show the loss how verl samples and sums up ({what} not given), so that "
            f"it could not refuse what it must. Select it with the preset: {PRESET}"
        )
    unknown = sorted(set(host) - set(HOST_SETTINGS))
    if unknown:
        raise ConfigError(f"{SECTION}.host has no setting {unknown[0]!r}.{suggest(unknown[0], HOST_SETTINGS)}")
    if behavior == "rollout":
        _check_rollout_anchor(host, rollout_correction)
    elif rollout_correction.get("bypass_mode"):
        raise ConfigError(
            f"{SECTION}.behavior=recomputed asks for the trainer's log-probabilities as the anchor, and "
            "algorithm.rollout_correction.bypass_mode=true gives the rollout's. Set bypass_mode=false, "
            "or behavior=rollout."
        )
    _check_sampling(host)
    if host["loss_agg_mode"] == "seq-mean-token-sum-norm" and not host["loss_scale_factor"]:
        raise ConfigError(
            "loss_agg_mode=seq-mean-token-sum-norm without loss_scale_factor divides by the padded "
            "length of each micro-batch, so that the gradient depends on the split. Set "
            "actor_rollout_ref.actor.loss_scale_factor=<the maximum response length in tokens>."
        )
    for name, default in OTHER_LOSSES.items():
        if host[name] is not None and host[name] != default:
            raise ConfigError(
                f"{HOST_SETTINGS[name]}={host[name]} is for verl's own losses and would be ignored. "
                f"Leave it at {default}, and set our objective's parameters under {SECTION}.parameters."
            )


def check_recorded(host: Any, rollout_correction: Any, preset: str) -> None:
    """Refuse a verl configuration under which no log-probabilities of the engine reach the loss that is recorded.

    Raises:
        ConfigError: μ is missing, the section does not show these settings, or the engine is one whose rank 0 may
            compute no loss.
    """
    if host is None or set(host) != set(RECORD_SETTINGS) or not isinstance(rollout_correction, Mapping):
        raise ConfigError(
            f"{SECTION} does not show the loss where old_log_probs come from (host and rollout_correction). Select it "
            f"with the preset: {preset}"
        )
    if not rollout_correction.get("bypass_mode"):
        raise ConfigError(
            "no μ to record: verl shows a loss the trainer's own log-probabilities, recomputed, unless "
            "algorithm.rollout_correction.bypass_mode=true. Set it; verl's ratio is π/μ then."
        )
    for name, (refused, why) in RECORD_SETTINGS.items():
        if host[name] == refused:
            raise ConfigError(why)


def check_other_losses(section: Mapping[str, Any]) -> None:
    """Refuse knobs of verl's other losses in our own section.

    Raises:
        ConfigError: one of them is not what verl ships.
    """
    for name, default in OTHER_LOSSES_SECTION.items():
        if section[name] != default:
            raise ConfigError(
                f"{SECTION}.{name}={section[name]} is for another loss and would be ignored. Leave it at "
                f"{'null' if default is None else default}; our objective's parameters stand under "
                f"{SECTION}.parameters."
            )


def _check_rollout_anchor(host: Mapping[str, Any], correction: Mapping[str, Any]) -> None:
    if not correction.get("bypass_mode"):
        raise ConfigError(
            "the anchor would not be the policy that sampled: verl recomputes old_log_probs with the "
            "trainer unless algorithm.rollout_correction.bypass_mode=true. Set it, or say that you want "
            f"the recomputed policy as the anchor with {SECTION}.behavior=recomputed."
        )
    if not host["use_v1"]:
        raise ConfigError(
            "trainer.use_v1=false with bypass_mode=true: verl's legacy trainer then replaces loss_mode "
            "by its own bypass loss (verl issue 4912). Set trainer.use_v1=true, which is the default."
        )
    if not host["calculate_log_probs"]:
        raise ConfigError(
            "the rollout returns no log-probabilities, so that μ is missing. Set "
            "actor_rollout_ref.rollout.calculate_log_probs=true, which is the default."
        )
    if host["logprobs_mode"] != "processed_logprobs":
        raise ConfigError(
            f"actor_rollout_ref.rollout.logprobs_mode={host['logprobs_mode']} gives log-probabilities "
            "before the temperature, and the trainer's are after it. Set processed_logprobs, which is "
            "the default."
        )
    for name in ("rollout_is", "rollout_rs"):
        if correction.get(name):
            raise ConfigError(
                f"algorithm.rollout_correction.{name}={correction[name]} would be ignored: with "
                "bypass_mode=true only verl's own bypass loss applies it. Set it to null; our ratio is "
                "π/μ already."
            )
    if correction.get("loss_type", "ppo_clip") != "ppo_clip":
        raise ConfigError(
            f"algorithm.rollout_correction.loss_type={correction['loss_type']} is for verl's own bypass "
            "loss and would be ignored. Leave it at ppo_clip."
        )


def _check_sampling(host: Mapping[str, Any]) -> None:
    for name, whole, off in (("top_p", host["top_p"] == 1, "1.0"), ("top_k", host["top_k"] in (-1, 0), "-1")):
        if not whole:
            raise ConfigError(
                f"actor_rollout_ref.rollout.{name}={host[name]} cuts the distribution that samples, and "
                "the trainer's log-probabilities are of the whole one: the ratio would be wrong for "
                f"every token. verl does not replay the tokens that a cut left. Set {name}={off}, or use "
                "`drpo train` or SkyRL's sample support replay, which do."
            )
