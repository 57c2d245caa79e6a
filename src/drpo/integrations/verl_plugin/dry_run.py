"""What verl says to a configuration: ``python -m drpo.integrations.verl_plugin.dry_run key=value …``.

Nothing starts. The configuration is composed from verl's own files with Hydra, strictly; then come the checks of
verl's entry point before it starts Ray, then those of its workers, as far as they need neither a model nor a GPU. The
last line is ``DRY-RUN {json}``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.import_utils import load_extern_object

from drpo.errors import ConfigError
from drpo.integrations.verl import DRPOPolicyLossConfig, DRPORecordConfig, running_name

CONFIG_FOLDER = Path(verl.__file__).parent / "trainer" / "config"
#: Sections that verl turns into dataclasses without looking at a model.
SECTIONS = ("actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm")
NOT_VALIDATED = (
    "megatron.override_transformer_config and optim.override_optimizer_config: passed to Megatron as they are",
    "the model, the tokenizer and the data files: nothing is loaded",
    "memory, and whether the GPUs can do the precision that is asked for",
)


def compose_config(overrides: list[str]) -> DictConfig:
    """verl's configuration with these overrides, as its entry point would get it.

    Raises:
        hydra's errors: a key that verl does not have, or a value that is not Hydra's notation.
    """
    with initialize_config_dir(str(CONFIG_FOLDER), version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def validate(config: DictConfig) -> list[str]:
    """What was validated, a line each.

    Raises:
        ConfigError: our loss is not the one that would run, or sizes do not divide.
        AssertionError, ValueError, hydra's errors: verl refuses.
    """
    OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    lines = [f"composed from verl {version('verl')}'s own files, no unknown key"]
    validate_config(config, need_reference_policy(config), need_critic(config))
    lines.append("verl's validate_config")
    objects = {name: omega_conf_to_dataclass(OmegaConf.select(config, name)) for name in SECTIONS}
    lines += [f"{name} as verl's {type(made).__name__}" for name, made in objects.items()]
    loss = objects["actor_rollout_ref.actor"].policy_loss
    lines.append(describe_loss(loss))
    lines.append(check_sizes(config))
    return lines


def describe_loss(loss: Any) -> str:
    """What the section ``policy_loss`` selects.

    Raises:
        ConfigError: verl's own loss, unrecorded.
    """
    if isinstance(loss, DRPORecordConfig):
        what = f"verl's {loss.loss}, recorded in {loss.path}"
    elif isinstance(loss, DRPOPolicyLossConfig):
        what = f"{running_name(loss)}, anchored on the {loss.behavior} policy"
    else:
        raise ConfigError("the policy loss is verl's own, not drpo's: the preset +drpo=rollout_anchored is missing")
    get_policy_loss_fn(loss.loss_mode)
    return f"loss {loss.loss_mode} is registered: {what}"


def check_sizes(config: DictConfig) -> str:
    """Whether batches and parallel sizes divide, which verl finds out in its workers.

    Raises:
        ConfigError: they do not.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    count = config.trainer.nnodes * config.trainer.n_gpus_per_node
    shards = 1
    if config.model_engine == "megatron":
        megatron = actor.megatron
        shards = (
            megatron.tensor_model_parallel_size * megatron.pipeline_model_parallel_size * megatron.context_parallel_size
        )
        experts = (
            megatron.expert_model_parallel_size
            * megatron.pipeline_model_parallel_size
            * (megatron.expert_tensor_parallel_size or megatron.tensor_model_parallel_size)
        )
        _divides("GPUs", count, "expert-parallel ranks", experts if megatron.expert_model_parallel_size > 1 else 1)
    _divides("GPUs", count, "GPUs of one copy of the trained model", shards)
    _divides("GPUs", count, "rollout.tensor_model_parallel_size", rollout.tensor_model_parallel_size)
    _divides("data.train_batch_size", config.data.train_batch_size, "ppo_mini_batch_size", actor.ppo_mini_batch_size)
    responses = actor.ppo_mini_batch_size * rollout.n
    _divides("responses of an update", responses, "data-parallel ranks", count // shards)
    updates = config.data.train_batch_size // actor.ppo_mini_batch_size * actor.ppo_epochs
    return f"sizes divide: {count} GPUs, {responses} responses an update, {updates} updates a rollout batch"


def check_reward(config: DictConfig) -> list[str]:
    """The reward function, loaded as verl does; what is missing for it otherwise."""
    reward = config.reward.custom_reward_function
    if reward.path is None:
        return []
    if "verl_math" in str(reward.path) and importlib.util.find_spec("math_verify") is None:
        return ["the reward: math-verify is not installed here. Everywhere: pip install 'math-verify[antlr4_9_3]'"]
    load_extern_object(reward.path, reward.name)
    return []


def _divides(what: str, total: int, by: str, part: int) -> None:
    if total % part:
        raise ConfigError(f"{what} ({total}) must be a multiple of {by} ({part})")


def main(overrides: list[str]) -> dict[str, Any]:
    """The answer for ``drpo recipe launch --dry-run``."""
    try:
        config = compose_config(overrides)
        validated = validate(config)
        missing = check_reward(config)
    except Exception as error:  # whatever verl, Hydra or our plug-in raise is the answer
        return {"error": f"{type(error).__name__}: {error}"}
    return {"validated": validated, "not_validated": [*missing, *NOT_VALIDATED]}


def print_answer(arguments: list[str]) -> None:
    """Print the answer for these command-line arguments as the last line."""
    overrides = [argument for argument in arguments if argument != "--dry-run"]
    sys.stdout.write(f"\nDRY-RUN {json.dumps(main(overrides))}\n")


if __name__ == "__main__":
    print_answer(sys.argv[1:])
