"""What the plug-in relies on in TRL, checked before a run starts."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from trl import GRPOTrainer, __version__  # pyright: ignore[reportAttributeAccessIssue]

from drpo.errors import ConfigError

#: The versions of TRL that the tests ran with.
TESTED_VERSIONS = ("1.16.0",)
LOSS_PARAMETERS = ("self", "model", "inputs")
FORWARD_PARAMETERS = (
    "self", "model", "input_ids", "attention_mask", "logits_to_keep", "compute_entropy", "compute_aux_loss",
)  # fmt: skip
ATTRIBUTES = (
    "accelerator", "aux_loss_enabled", "beta", "entropy_coef", "eos_token_ids", "is_fsdp_enabled",
    "max_completion_length", "model_wrapped", "num_iterations", "router_aux_loss_coef", "temperature", "_metrics",
    "_step",
)  # fmt: skip
REQUIRED_INPUTS = frozenset({
    "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch",
})  # fmt: skip
OPTIONAL_INPUTS = frozenset({
    "old_per_token_logps", "sampling_per_token_logps", "ref_per_token_logps", "tool_mask",
})  # fmt: skip


def check_trl() -> None:
    """Whether the installed TRL has what the plug-in overrides and calls.

    Raises:
        ConfigError: it has not.
    """
    loss = _parameters("_compute_loss")
    if loss != LOSS_PARAMETERS:
        raise unsupported(f"GRPOTrainer._compute_loss takes ({', '.join(loss)}), not ({', '.join(LOSS_PARAMETERS)})")
    missing = [name for name in FORWARD_PARAMETERS if name not in forward_parameters()]
    if missing:
        raise unsupported(f"GRPOTrainer._get_per_token_logps_and_entropies takes no {', '.join(missing)}")
    if getattr(GRPOTrainer, "loss_is_scaled_for_ga", None) is not True:
        raise unsupported("GRPOTrainer does not leave the scaling over gradient accumulation to its loss")


def check_trainer(trainer: Any) -> None:
    """Whether a constructed trainer has the attributes that the loss reads.

    Raises:
        ConfigError: it has not.
    """
    missing = [name for name in ATTRIBUTES if not hasattr(trainer, name)]
    if missing:
        raise unsupported(f"GRPOTrainer has no attribute {', '.join(missing)}")


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
    return frozenset(_parameters("_get_per_token_logps_and_entropies"))


def unsupported(what: str) -> ConfigError:
    """The error for a TRL that is not the one the plug-in was written for."""
    return ConfigError(f"TRL {__version__}: {what}. drpo.integrations.trl was tested with TRL "
                       f"{', '.join(TESTED_VERSIONS)}: pip install 'trl=={TESTED_VERSIONS[-1]}'.")


def _parameters(method: str) -> tuple[str, ...]:
    function = getattr(GRPOTrainer, method, None)
    if function is None:
        raise unsupported(f"GRPOTrainer has no {method}")
    return tuple(inspect.signature(function).parameters)


def given(arguments: Iterable[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What a call of GRPOTrainer's constructor sets, by parameter name."""
    bound = inspect.signature(GRPOTrainer.__init__).bind(None, *arguments, **keywords)
    return dict(bound.arguments)
