"""A policy as a plain Hugging Face model: any adapter merged, no optimizer beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from drpo.errors import CheckpointError, ConfigError
from drpo.train.lora import base_of_adapter, is_adapted, plain_weights
from drpo.train.policy import find_model, load_policy


def export_model(source: str, out: Path) -> bool:
    """Write the model that ``source`` (a directory or embedded:NAME) holds to the new directory ``out``, in float32.

    Returns:
        whether an adapter was merged.

    Raises:
        ConfigError: ``out`` exists, or ``source`` is no model. CheckpointError: the disk refuses.
    """
    if out.exists():
        raise ConfigError(f"--out {out} exists. Choose another directory, or remove it")
    cpu = torch.device("cpu")
    policy = load_policy(source, cpu)
    model, adapted = policy.model, is_adapted(policy.model)
    if adapted:
        base = base_of_adapter(find_model(source))
        assert base is not None
        model = load_policy(base, cpu).model
        model.load_state_dict(plain_weights(policy.model))
    try:
        model.save_pretrained(out)
        policy.tokenizer.save_pretrained(out)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(out, ignore_errors=True)
        raise CheckpointError(f"cannot write {out}: {error}. Free space or choose another --out") from error
    return adapted
