"""Low-rank adapters (LoRA) through peft: into the model, into checkpoints, and out of both again.

The adapted layers stay in their places: what calls a model's linear layers as modules (the trainer, the in-process
sampler with its lean decoding step) runs the adapted policy, and both sides do the same operations. Nothing is merged
while training, so that the frozen weights keep their bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from packaging.version import parse

from drpo.errors import ConfigError, suggest
from drpo.model.adapters import ADAPTER_NAME, require_peft
from drpo.model.lora_settings import Lora


def add_adapter(model: Any, lora: Lora, base: str) -> None:
    """Put fresh adapters on the linear layers that ``lora`` names, and freeze all else. B starts at 0: nothing changes.

    Args:
        model: a causal LM of transformers.
        lora: rank, scaling and targets.
        base: where the model was loaded from, for whoever loads the adapter.

    Raises:
        ConfigError: peft is missing or too old for the installed transformers, or a target is no linear layer of
            the model.
    """
    peft = require_peft()
    _check_version(peft.__version__)
    targets = lora.targets if isinstance(lora.targets, list) else sorted(linear_names(model))
    for target in targets:
        if target not in linear_names(model):
            raise ConfigError(
                f"lora.targets: {type(model).__name__} has no linear layer {target!r} (the LM head takes "
                f"no adapter).{suggest(target, linear_names(model))}"
            )
    head = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    model.add_adapter(
        peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=0.0,
            target_modules=targets,
            exclude_modules=head or None,
            task_type="CAUSAL_LM",
        )
    )
    model.peft_config[ADAPTER_NAME].base_model_name_or_path = base


def _check_version(found: str) -> None:
    import transformers
    from transformers.integrations import peft as bridge

    least = getattr(bridge, "MIN_PEFT_VERSION", found)
    if parse(found) < parse(least):
        raise ConfigError(
            f"lora: transformers {transformers.__version__} needs peft {least} or newer, found {found}. "
            f"Run pip install 'peft>={least}', or, where there is no such release yet, install the transformers of "
            "constraints.txt."
        )


def is_adapted(model: Any) -> bool:
    """Whether ``model`` carries adapters."""
    return getattr(model, "_hf_peft_config_loaded", False)


def linear_names(model: Any) -> set[str]:
    """Last parts of the names of the linear layers that can be adapted. Parameters that are no ``nn.Linear`` (the
    stacked experts of a mixture) cannot."""
    head = model.get_output_embeddings()
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def describe_adapter(model: Any) -> str:
    """How much of the model trains, and which matrices have no adapter, in words."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    bare: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter.dim() > 1 and ".base_layer." not in name:
            kind = re.sub(r"\.\d+\.", ".*.", name)
            bare[kind] = bare.get(kind, 0) + parameter.numel()
    listed = ", ".join(f"{kind} ({count / total:.0%})" for kind, count in bare.items())
    return f"LoRA trains {trained:,} of {total:,} parameters; without an adapter stay {listed or 'no matrices'}"


@torch.no_grad()
def plain_weights(model: Any) -> Mapping[str, torch.Tensor]:
    """The state dict of ``model`` with every adapter added into its matrix, under the base model's names: what another
    engine samples from, and what is exported. Of a model without adapters, its own state dict."""
    state = model.state_dict()
    if not is_adapted(model):
        return state
    merged = {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}
    for name, module in model.named_modules():
        if hasattr(module, "base_layer"):
            merged[f"{name}.weight"] = module.base_layer.weight + module.get_delta_weight(ADAPTER_NAME)
    return merged
