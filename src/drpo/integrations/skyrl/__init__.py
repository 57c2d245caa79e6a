"""The objectives as a policy loss of SkyRL-Train: its configuration, what it cannot be run with, and the loss.

``python -m drpo.integrations.skyrl …`` trains with it; a script of one's own calls :func:`register` before
``initialize_ray``, builds its configuration with ``make_config(algorithm_cls=DRPOAlgorithmConfig)`` and calls
:func:`check` on it.

SkyRL divides the advantages, not the loss, by the number of tokens or sequences, and adds up what the loss returns over
micro-batches and ranks. So the loss is a masked sum, and an objective has to be homogeneous in the advantage.

Shapes: ``B`` sequences, ``T`` positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic.errors import PydanticUserError

from drpo.batch import TokenBatch
from drpo.errors import ConfigError
from drpo.integrations.padded import (
    PREFIX,
    leave_out,
    loss_metrics,
    make_host_objective,
    padded_loss,
    require_whole_update,
)
from drpo.objectives import Objective

try:
    from skyrl.backends.skyrl_train.utils.ppo_utils import PolicyLossRegistry
    from skyrl.train.config import AlgorithmConfig, SkyRLTrainConfig
except PydanticUserError as error:
    raise ConfigError(
        "SkyRL 0.3.0 says that it runs on Python 3.11, but pydantic refuses one of its models there "
        "(a typing.TypedDict before Python 3.12). Use Python 3.12 or newer, which SkyRL 0.4.0 needs as well."
    ) from error

#: ``trainer.algorithm.policy_loss_type``.
NAME = "drpo"
HOST = "SkyRL"
#: Options of SkyRL's own losses, which this loss has no use for.
IGNORED = (
    "eps_clip_low",
    "eps_clip_high",
    "clip_ratio_c",
    "use_tis",
    "tis_imp_ratio_cap",
    "off_policy_correction",
    "sapo",
    "clip_cov",
    "kl_cov",
    "cispo",
    "dppo",
)
#: Sampling options → the values that leave the distribution alone.
PLAIN_SAMPLING = {"top_p": (1.0,), "top_k": (-1, 0), "min_p": (0.0,), "repetition_penalty": (1.0,)}
#: Those of them that SkyRL's sample-support replay (since 0.4.0) makes exact: the sampler records which tokens were
#: left to choose from, and the trainer renormalizes π over them.
REPLAYED = ("top_p", "top_k", "min_p")
#: The settings that switch it on, in the sampler and in the trainer.
REPLAY = (
    "generator.inference_engine.enable_return_sample_support_set",
    "trainer.algorithm.enable_sample_support_replay",
)
#: Further options of vLLM that change the distribution.
DISTORTING = frozenset(
    {
        *PLAIN_SAMPLING,
        "temperature",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "min_tokens",
        "bad_words",
        "allowed_token_ids",
    }
)
#: What is reported, always all of it: SkyRL reduces name by name over the ranks, and a name missing on one of them
#: would pair it with another's. SkyRL takes the extremes of names in _min and _max and averages the rest.
METRICS = (
    "ratio",
    "ratio_min",
    "ratio_max",
    "shift",
    "shift_max",
    "beyond_delta",
    "diverging_share",
    "mismatch",
    "mismatch_max",
    "k3_kl",
    "rare_share",
    "saturated_share",
    "weight",
    "corrective_share",
    "masked_share",
    "corrective_mass",
    "masked_mass",
)


@dataclass
class DRPOAlgorithmConfig(AlgorithmConfig):
    """``trainer.algorithm`` with an objective: ``trainer.algorithm.objective=…``, ``trainer.algorithm.parameters.…=…``.

    Args:
        objective: a name of :data:`drpo.OBJECTIVES`.
        parameters: keyword arguments of :func:`drpo.make_objective`, ``anchor`` and ``modifiers`` among them.

    Raises:
        ConfigError: an unknown name or parameter, an objective that SkyRL cannot feed, or an option of SkyRL's own
            losses.
    """

    policy_loss_type: str = NAME
    objective: str = "drpo"
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.policy_loss_type != NAME:
            raise ConfigError(
                f"trainer.algorithm.policy_loss_type={self.policy_loss_type!r} is not ours: objective "
                f"and parameters would be ignored. Leave it at {NAME!r} and name the objective in "
                "trainer.algorithm.objective, or use SkyRL's own entry point."
            )
        self.make_objective()
        default = AlgorithmConfig()
        for name in IGNORED:
            if getattr(self, name) != getattr(default, name):
                raise ConfigError(
                    f"trainer.algorithm.{name} belongs to SkyRL's own losses and would be ignored. "
                    "Remove it; bounds go into trainer.algorithm.parameters (`drpo objectives` lists "
                    "them), a correction of the engines' mismatch into parameters.modifiers."
                )

    def make_objective(self) -> Objective:
        return make_host_objective(
            HOST, self.objective, self.parameters, gives=("proximal_logprobs",), sums_scaled_advantages=True
        )


def drpo_policy_loss(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor | None,
    advantages: torch.Tensor,
    config: DRPOAlgorithmConfig,
    loss_mask: torch.Tensor | None = None,
    rollout_logprobs: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The sum of the objective's loss over the kept tokens, and its metrics.

    Args:
        log_probs: ``[B, T]``, log π; carries the gradient.
        old_log_probs: ``[B, T]``, log π_old; read by objectives that need it, else it may be None.
        advantages: ``[B, T]``, divided by SkyRL already.
        config: ``trainer.algorithm``.
        loss_mask: ``[B, T]``; None keeps everything.
        rollout_logprobs: ``[B, T]``, log μ from the inference engine.

    Raises:
        ConfigError: no rollout_logprobs, or another configuration class.
        DataError: a kept log-probability is not finite or positive.
    """
    if not isinstance(config, DRPOAlgorithmConfig):
        raise ConfigError(
            f"policy_loss_type={NAME!r} needs its own configuration class, got {type(config).__name__}. "
            "Build it with make_config(algorithm_cls=drpo.integrations.skyrl.DRPOAlgorithmConfig), or "
            "start with `python -m drpo.integrations.skyrl`."
        )
    if rollout_logprobs is None:
        raise ConfigError(
            "SkyRL handed over no rollout_logprobs: without the sampler's own log-probabilities there is "
            "no ratio to bound. Set generator.sampling_params.logprobs=1, and use a generator that "
            "returns them (one that tokenizes the chat history again cannot)."
        )
    objective = config.make_objective()
    needs_old = "proximal_logprobs" in objective.needs
    if needs_old and old_log_probs is None:
        raise ConfigError(
            f"objective {config.objective!r} needs old_log_probs, which this trainer did not compute. "
            "Use RayPPOTrainer, or an objective anchored on the rollout."
        )
    mask = torch.ones_like(log_probs, dtype=torch.bool) if loss_mask is None else loss_mask
    mask, left_out = leave_out(mask, rollout_logprobs, HOST)
    loss, batch = padded_loss(
        objective, log_probs, rollout_logprobs, advantages, mask, proximal_logprobs=old_log_probs if needs_old else None
    )
    return loss.sum(), {**_metrics(batch, objective), PREFIX + "left_out_share": left_out}


def _metrics(batch: TokenBatch, objective: Objective) -> dict[str, float]:
    found = loss_metrics(batch, objective, extremes=True)
    # A micro-batch of padding has no tokens; on policy every ratio is 1 and everything else 0.
    return {PREFIX + name: found.get(PREFIX + name, 1.0 if name.startswith("ratio") else 0.0) for name in METRICS}


def register() -> None:
    """Make ``policy_loss_type=drpo`` known; before ``initialize_ray``, which hands it to the workers."""
    if NAME not in PolicyLossRegistry.list_available():
        PolicyLossRegistry.register(NAME, drpo_policy_loss)


def check(cfg: SkyRLTrainConfig) -> None:
    """Refuse a configuration under which the rollout's log-probabilities are missing or not those of π.

    Raises:
        ConfigError: what is wrong and how to fix it.
    """
    algorithm = cfg.trainer.algorithm
    if not isinstance(algorithm, DRPOAlgorithmConfig):
        raise ConfigError(
            "trainer.algorithm is not a DRPOAlgorithmConfig; build the configuration with "
            "make_config(algorithm_cls=DRPOAlgorithmConfig)"
        )
    _check_sampling(cfg)
    objective = algorithm.make_objective()
    if cfg.trainer.fully_async.enabled and "proximal_logprobs" in objective.needs:
        raise ConfigError(
            f"objective {algorithm.objective!r} needs log π_old at the weights that sampled, which "
            "fully asynchronous training has lost. Use an objective anchored on the rollout."
        )
    placement = cfg.trainer.placement
    sequences = cfg.trainer.policy_mini_batch_size * cfg.generator.n_samples_per_prompt
    whole = (
        placement.policy_num_nodes * placement.policy_num_gpus_per_node == 1
        and cfg.trainer.micro_train_batch_size_per_gpu >= sequences
        and cfg.trainer.max_tokens_per_microbatch <= 0
        and not cfg.generator.step_wise_trajectories
    )
    fix = (
        f"Train on one GPU with trainer.micro_train_batch_size_per_gpu={sequences} (policy_mini_batch_size × "
        "n_samples_per_prompt), or use another objective."
    )
    require_whole_update(objective, whole, HOST, fix)


def _check_sampling(cfg: SkyRLTrainConfig) -> None:
    generator, prefix = cfg.generator, "generator.sampling_params"
    sampling = generator.sampling_params
    if sampling.logprobs is None:
        raise ConfigError(f"{prefix}.logprobs=null: the sampler's log-probabilities would be missing. Set it to 1.")
    changed = {name: plain for name, plain in PLAIN_SAMPLING.items() if getattr(sampling, name) not in plain}
    replayed = _replays_support(cfg)
    for name, plain in changed.items():
        if name not in REPLAYED or not replayed:
            replay = f", or set {REPLAY[0]}=true and {REPLAY[1]}=true" if name in REPLAYED and _can_replay(cfg) else ""
            raise ConfigError(
                f"{prefix}.{name}={getattr(sampling, name)}: the tokens then come from another "
                f"distribution than the one whose log-probability the trainer computes. Set it to "
                f"{plain[0]}{replay}."
            )
    distorting = sorted(DISTORTING & set(sampling.additional_kwargs or ()))
    if distorting:
        raise ConfigError(
            f"{prefix}.additional_kwargs changes what is sampled ({', '.join(distorting)}), which the "
            "trainer's log-probabilities do not follow. Remove it."
        )
    if cfg.trainer.algorithm.temperature != sampling.temperature:
        raise ConfigError(
            f"trainer.algorithm.temperature={cfg.trainer.algorithm.temperature} but {prefix}.temperature="
            f"{sampling.temperature}: π and μ would be at two temperatures. Remove the first; SkyRL "
            "copies it."
        )
    _check_logprobs_mode(cfg, plain=sampling.temperature == 1.0 and not changed)
    if not (generator.use_conversation_multi_turn or generator.batched):
        raise ConfigError(
            "generator.use_conversation_multi_turn=false: SkyRL then takes the sampled end token off each response, "
            "appends it again, trains on it, and gives it the log-probability 0. Set it to true, or for a single "
            "turn generator.batched=true."
        )


def _can_replay(cfg: SkyRLTrainConfig) -> bool:
    return hasattr(cfg.trainer.algorithm, "enable_sample_support_replay")


def _replays_support(cfg: SkyRLTrainConfig) -> bool:
    recorded = getattr(cfg.generator.inference_engine, "enable_return_sample_support_set", False)
    return bool(recorded and getattr(cfg.trainer.algorithm, "enable_sample_support_replay", False))


def _check_logprobs_mode(cfg: SkyRLTrainConfig, plain: bool) -> None:
    """Refuse engines whose log-probabilities are not those of the distribution that they sample from.

    With prefill and decode engines apart (since 0.4.0) each has its own options, which replace ``engine_init_kwargs``.
    """
    engine = cfg.generator.inference_engine
    roles = [name for name in ("prefill_init_kwargs", "decode_init_kwargs") if getattr(engine, name, None)]
    places = ["prefill_init_kwargs", "decode_init_kwargs"] if roles else ["engine_init_kwargs"]
    # SkyRL asks for the processed ones where it records the support; options of the engine come after that.
    default = "processed_logprobs" if getattr(engine, "enable_return_sample_support_set", False) else "raw_logprobs"
    allowed = ("processed_logprobs", "raw_logprobs") if plain else ("processed_logprobs",)
    for place in places:
        mode = getattr(engine, place).get("logprobs_mode", default)
        if mode not in allowed:
            raise ConfigError(
                f"generator.inference_engine.{place}: with logprobs_mode={mode} and "
                f"generator.sampling_params.temperature={cfg.generator.sampling_params.temperature}, vLLM does not "
                "report the log-probabilities of the distribution that it samples from. Set "
                f"generator.inference_engine.{place}.logprobs_mode=processed_logprobs (and start external servers "
                "with --logprobs-mode processed_logprobs), or sample at temperature 1 and leave logprobs_mode out."
            )
