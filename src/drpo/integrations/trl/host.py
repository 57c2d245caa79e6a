"""What the plug-in relies on in TRL, checked before a run starts, and all that differs between its releases."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from trl import GRPOTrainer, __version__  # pyright: ignore[reportAttributeAccessIssue]
from trl.models import unwrap_model_for_generation  # pyright: ignore[reportPrivateImportUsage]

from drpo.errors import ConfigError
from drpo.integrations.padded import PREFIX, check_left_out
from drpo.learning_signal import RolloutFacts

#: The versions of TRL that the tests ran with.
TESTED_VERSIONS = ("1.14.1", "1.14.2", "1.15.0", "1.16.0")
#: What to install, from the oldest to the newest of them.
REQUIREMENT = "trl>=1.14.1,<1.17"
#: TRL's forward pass for log π, and what takes its parameters by name in TRL 1.14, where the first hands everything on.
FORWARD_METHOD = "_get_per_token_logps_and_entropies"
FORWARD_METHOD_BEHIND = "_full_logits_logps"
LOSS_PARAMETERS = ("self", "model", "inputs")
FORWARD_PARAMETERS = (
    "self",
    "model",
    "input_ids",
    "attention_mask",
    "logits_to_keep",
    "compute_entropy",
    "compute_aux_loss",
)
ATTRIBUTES = (
    "accelerator",
    "aux_loss_enabled",
    "beta",
    "entropy_coef",
    "is_fsdp_enabled",
    "max_completion_length",
    "model_wrapped",
    "num_iterations",
    "router_aux_loss_coef",
    "temperature",
    "_metrics",
    "_step",
    "_tokenizer",
)
REQUIRED_INPUTS = frozenset(
    {
        "prompt_ids",
        "prompt_mask",
        "completion_ids",
        "completion_mask",
        "advantages",
        "num_items_in_batch",
    }
)
OPTIONAL_INPUTS = frozenset(
    {
        "old_per_token_logps",
        "sampling_per_token_logps",
        "ref_per_token_logps",
        "tool_mask",
    }
)


def check_trl() -> None:
    """Whether the installed TRL has what the plug-in overrides and calls.

    Raises:
        ConfigError: it has not.
    """
    if GRPOTrainer.__module__.partition(".")[0] != "trl":
        raise ConfigError(
            f"trl.GRPOTrainer is {GRPOTrainer.__module__}.{GRPOTrainer.__qualname__}, which has a loss of its own and "
            "would not call the objective's. Import drpo.integrations.trl before what replaces it (Unsloth)."
        )
    loss = _parameters("_compute_loss")
    if loss != LOSS_PARAMETERS:
        raise unsupported(f"GRPOTrainer._compute_loss takes ({', '.join(loss)}), not ({', '.join(LOSS_PARAMETERS)})")
    _parameters("_generate_and_score_completions")
    missing = [name for name in FORWARD_PARAMETERS if name not in forward_parameters()]
    if missing:
        raise unsupported(f"GRPOTrainer.{FORWARD_METHOD} takes no {', '.join(missing)}")


def check_options(args: Any) -> None:
    """Whether the installed TRL can run the options beside the plug-in.

    Raises:
        ConfigError: it cannot.
    """
    # The kernel takes the place of the model's forward, and with it the way to the hidden states.
    if args.use_liger_kernel and hasattr(GRPOTrainer, "_chunked_logps"):
        raise ConfigError(
            f"use_liger_kernel=True replaces the model's forward in TRL {__version__}, and DRPOTrainer needs it. Leave "
            "it out: the loss makes no logits without it."
        )


def begins_rollouts(trainer: Any) -> bool:
    """Whether the loss that is being computed is the first one of a rollout batch."""
    return trainer._step % (trainer.args.steps_per_generation * trainer.num_iterations) == 0


def leave_out_tokens(trainer: Any, output: dict[str, Any], mode: str) -> None:
    """Take the tokens without a log μ out of a rollout batch that TRL has just made, and count them.

    vLLM reports NaN or null for some tokens. Where they are few, the loss mask and ``num_items_in_batch`` become what
    they would be had these tokens been masked from the start.

    Args:
        trainer: whose rollout it is.
        output: what ``_generate_and_score_completions`` returns; changed in place.
        mode: ``train`` or ``eval``.

    Raises:
        DataError: more than 5 % of the tokens of all processes.
    """
    behavior = output.get("sampling_per_token_logps")
    if behavior is None:
        return
    kept = (output["completion_mask"] * output.get("tool_mask", 1)).bool()
    missing = kept & ~behavior.isfinite()
    counts = trainer.accelerator.gather(torch.stack([missing.sum(), kept.sum()]).unsqueeze(0)).sum(0)
    left_out, total = counts.tolist()
    check_left_out(left_out, total, "TRL")
    trainer._metrics[mode].setdefault(PREFIX + "left_out_share", []).append(left_out / max(total, 1))
    if left_out:
        mask = output.get("tool_mask", torch.ones_like(output["completion_mask"]))
        output["tool_mask"] = mask.masked_fill(missing, 0)
        output["sampling_per_token_logps"] = behavior.masked_fill(missing, 0.0)
        output["num_items_in_batch"] = output["num_items_in_batch"] - left_out


def facts_of(trainer: Any, output: Mapping[str, Any]) -> RolloutFacts:
    """What TRL knows of the rollout batch it has just made, over all processes."""
    largest = trainer.accelerator.gather(output["advantages"].abs().max().unsqueeze(0)).max()
    cut_off, reward = (
        values[-1] if (values := trainer._metrics["train"].get(name)) else None
        for name in ("completions/clipped_ratio", "reward")
    )
    return RolloutFacts(
        varies=bool(largest > 0),
        cut_off=None if cut_off is None else cut_off == 1.0,
        failed=None if reward is None else math.isnan(reward),
        reward=reward,
    )


def check_trainer(trainer: Any) -> None:
    """Whether a constructed trainer has the attributes that the loss reads.

    Raises:
        ConfigError: it has not.
    """
    missing = [name for name in ATTRIBUTES if not hasattr(trainer, name)]
    if missing:
        raise unsupported(f"GRPOTrainer has no attribute {', '.join(missing)}")
    # TRL 1.14 says it to transformers by a compute_loss_func, which is never called.
    if not (getattr(trainer, "loss_is_scaled_for_ga", None) or trainer.compute_loss_func is not None):
        raise unsupported("GRPOTrainer does not leave the scaling over gradient accumulation to its loss")


def check_inputs(inputs: Mapping[str, Any]) -> None:
    """Whether TRL hands the loss what it needs, and nothing that it would drop.

    Raises:
        ConfigError: an input is missing or unknown.
    """
    missing = REQUIRED_INPUTS - inputs.keys()
    if missing:
        raise unsupported(f"the loss is not given {', '.join(sorted(missing))}")
    unknown = inputs.keys() - REQUIRED_INPUTS - OPTIONAL_INPUTS - forward_parameters()
    if unknown:
        raise unsupported(f"the loss is given {', '.join(sorted(unknown))}, which it would ignore")


def forward_parameters() -> frozenset[str]:
    """The names that TRL's forward pass takes."""
    names = _parameters(FORWARD_METHOD)
    return frozenset([*names, *_parameters(FORWARD_METHOD_BEHIND)] if "args" in names else names)


def eos_token_ids(trainer: Any) -> list[int]:
    """The tokens at which TRL ends a response; up to TRL 1.14.1 it is the tokenizer's alone."""
    return getattr(trainer, "eos_token_ids", None) or [trainer._tokenizer.eos_token_id]


def model_for_generation(trainer: Any) -> AbstractContextManager[Any]:
    """The trained model, ready to sample. TRL 1.16 also takes the settings to re-enable gradient checkpointing."""
    further = {"gradient_checkpointing_kwargs": trainer.args.gradient_checkpointing_kwargs}
    taken = inspect.signature(unwrap_model_for_generation).parameters
    return unwrap_model_for_generation(
        trainer.model_wrapped, trainer.accelerator, **{name: value for name, value in further.items() if name in taken}
    )


def unsupported(what: str) -> ConfigError:
    """The error for a TRL that is not the one the plug-in was written for."""
    return ConfigError(
        f"TRL {__version__}: {what}. drpo.integrations.trl was tested with TRL "
        f"{', '.join(TESTED_VERSIONS)}: pip install '{REQUIREMENT}'."
    )


def _parameters(method: str) -> tuple[str, ...]:
    function = getattr(GRPOTrainer, method, None)
    if function is None:
        raise unsupported(f"GRPOTrainer has no {method}")
    return tuple(inspect.signature(function).parameters)


def given(arguments: Iterable[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What a call of GRPOTrainer's constructor sets, by parameter name."""
    bound = inspect.signature(GRPOTrainer.__init__).bind(None, *arguments, **keywords)
    return dict(bound.arguments)
