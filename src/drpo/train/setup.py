"""Building a run: from its configuration to the parts that it trains with. The run directory stays as it is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from drpo.errors import ConfigError
from drpo.model.adapters import base_of_adapter
from drpo.model.policy import Policy, load_policy
from drpo.model.source import find_model
from drpo.objectives import Objective
from drpo.rollouts import Sampler
from drpo.tasks import Task, make_task
from drpo.train.checkpoint import Progress, older_weights, restore
from drpo.train.config import TrainConfig
from drpo.train.memory.report import MemoryReport, report_memory
from drpo.train.prompt_room import PromptCheck, TrainingStream, check_prompts
from drpo.train.resume import base_of_run
from drpo.train.rollout_weights import RolloutWeights
from drpo.train.router_replay import replay_routing
from drpo.train.samplers import make_sampler, warn
from drpo.train.settings import RolloutSettings, UpdateSettings, rollout_settings, update_settings
from drpo.train.update import make_optimizer


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run trains with.

    Args:
        task: gives problems and rewards.
        objective: the per-token loss.
        policy: the model and its tokenizer.
        optimizer: steps what the policy trains.
        sampler: gives responses; to be closed.
        settings: of every update.
        rollout: settings of every rollout batch.
        prompts: what a look through the task's prompts found.
        stream: the training problems in order.
        memory: what the run will need.
        rollout_weights: which weights a step is sampled from.
        progress: how far the checkpoint is that the run starts from.
    """

    task: Task
    objective: Objective
    policy: Policy
    optimizer: torch.optim.Optimizer
    sampler: Sampler
    settings: UpdateSettings
    rollout: RolloutSettings
    prompts: PromptCheck
    stream: TrainingStream
    memory: MemoryReport
    rollout_weights: RolloutWeights
    progress: Progress


def build(
    config: TrainConfig,
    checkpoint: Path | None = None,
    engine_log: Path | None = None,
    note: Callable[[str], None] = warn,
    task: Task | None = None,
) -> Parts:
    """The parts of a run of ``config``.

    Args:
        config: every setting.
        checkpoint: where a resumed run starts from; None: from the beginning.
        engine_log: where a rollout engine's output goes; None: a temporary file.
        note: told of failures of the engine that were survived.
        task: what :func:`seeded_task` gave just before; None: it is called here.

    Raises:
        DrpoError: whatever cannot be built, with its fix.
    """
    task = task or seeded_task(config)
    device = pick_device(config.device)
    objective = config.make_objective()
    policy = _policy(config, checkpoint, device)
    optimizer = make_optimizer(policy, config.learning_rate, config.weight_decay)
    prompts = _checked_prompts(config, policy, task)
    # Of a resumed run only the checkpoint has to be there; adapters have their base besides.
    sized = config if checkpoint is None or config.lora else config.model_copy(update={"model": str(checkpoint)})
    memory = report_memory(sized, policy.device, prompts.heldout.longest)
    progress = Progress() if checkpoint is None else restore(checkpoint, optimizer)
    older = [] if checkpoint is None else older_weights(checkpoint, device)
    sampler = make_sampler(config, policy, engine_log, note)
    if config.router_replay:
        replay_routing(policy, sampler)
    return Parts(
        task=task,
        objective=objective,
        policy=policy,
        optimizer=optimizer,
        sampler=sampler,
        settings=update_settings(config, objective, policy.device),
        rollout=rollout_settings(config, objective),
        prompts=prompts,
        stream=TrainingStream(task, policy.prompt_encoder, prompts.room, config.seed),
        memory=memory,
        rollout_weights=RolloutWeights(config.rollout_lag, older),
        progress=progress,
    )


def seeded_task(config: TrainConfig) -> Task:
    """The task of a run, made after its generators are seeded: it may draw from them, and so does what is built next.

    Raises:
        ConfigError: there is no such task, or its parameters are wrong.
    """
    seed_generators(config.seed)
    return make_task(config.task.name, **config.task.parameters)


def seed_generators(seed: int) -> None:
    """Seed the generators of torch, Python and NumPy: fresh adapters are drawn from them, and libraries may be."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def pick_device(name: str) -> torch.device:
    """The torch device of that name; ``auto`` is the GPU if there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is not a torch device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: no CUDA device is visible to torch here; use device=auto or device=cpu")
    return device


def _policy(config: TrainConfig, checkpoint: Path | None, device: torch.device) -> Policy:
    """The policy at the weights that the run starts from."""
    trust = config.trust_remote_code
    if checkpoint is None and base_of_adapter(find_model(config.model, trust)) is not None:
        raise ConfigError(
            f"model: {config.model} is a LoRA adapter, not a model to train. Merge it first: "
            f"`drpo export {config.model} --out DIR`, then model=DIR."
        )
    policy = load_policy(
        config.model if checkpoint is None else str(checkpoint),
        device,
        config.precision,
        config.lora,
        config.gradient_checkpointing,
        base=None if checkpoint is None else base_of_run(config),
        trust_remote_code=trust,
    )
    policy.prompt_settings = config.prompt_settings
    return policy


def _checked_prompts(config: TrainConfig, policy: Policy, task: Task) -> PromptCheck:
    """The prompts of the run; refuses held-out ones that the model's rotary frequencies do not fit."""
    encoder, heldout = policy.prompt_encoder, task.heldout_examples(config.most_examples)
    prompts = check_prompts(encoder, policy.model.config, task, heldout, config)
    if policy.regimes.longrope is not None:
        lengths = {len(encoder.encode(e.prompt, e.chat, e.turns)) for e in prompts.heldout.examples}
        policy.regimes.check(lengths, config.max_new_tokens)
    return prompts
