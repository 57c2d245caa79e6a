"""Adapters that a directory holds: onto their base, beside its weights or merged into them, or refused.

Plain LoRA stays beside the weights, where it can be trained and sampled as it is. Every other kind that peft can merge
is merged by peft itself; the merged model has to compute what the adapted one did.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from drpo.errors import CheckpointError, ConfigError
from drpo.installation import install
from drpo.model.key_report import examples, likely_reason
from drpo.model.model_files import read_header, read_json, short
from drpo.model.source import ADAPTER_FILE

#: peft's name of the one adapter a policy has.
ADAPTER_NAME = "default"
WEIGHTS_FILE = "adapter_model.safetensors"
#: What every name in the file of a LoRA adapter begins with.
_PREFIX = "base_model.model."
#: Settings of LoRA that change neither the maths of a layer nor which of its parts are saved.
_PLAIN = frozenset(
    {
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "exclude_modules",
        "fan_in_fan_out",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layers_pattern",
        "runtime_config",
        "init_lora_weights",
    }
)
#: Largest difference of logits that merging in float32 may make, per unit of the largest logit.
_MERGE_TOLERANCE = 1e-4


def base_of_adapter(folder: Path) -> str | None:
    """What an adapter's directory names as its base; None if ``folder`` holds no adapter.

    Raises:
        ConfigError: its configuration is damaged, or names no base.
    """
    file = folder / ADAPTER_FILE
    if not file.is_file():
        return None
    config = read_json(file)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if base is not None and not isinstance(base, str):
        raise ConfigError(
            f"model: {file}: base_model_name_or_path is {short(base)}, no text. Write the base's "
            "directory or name there."
        )
    if not base:
        return ""
    return f"{base}@{revision}" if isinstance(revision, str) and not Path(base).exists() else base


def apply_adapter(model: Any, folder: Path, trained: bool = False, merge: bool = False) -> Any:
    """``model`` with the adapter of ``folder``.

    Args:
        model: the base, in float32.
        folder: the adapter's directory.
        trained: it goes on training; a fresh one is no error.
        merge: add it to the weights of its base, even if it could stay beside them.

    Raises:
        ConfigError: peft is missing. CheckpointError: the adapter is damaged, does not fit ``model``, cannot be
            merged, or changes nothing.
    """
    peft = require_peft()
    config = _read_config(peft, folder)
    if not (folder / WEIGHTS_FILE).is_file():
        others = sorted(file.name for pattern in ("*.bin", "*.safetensors") for file in folder.glob(pattern))
        beside = f" It holds {', '.join(others[:3])}." if others else ""
        raise CheckpointError(
            f"the adapter in {folder} has no {WEIGHTS_FILE}.{beside} Save it with safetensors "
            "(pickles are never loaded); if the adapter was merged, remove adapter_config.json."
        )
    keys = read_header(folder / WEIGHTS_FILE)
    plain = _stays_in_place(peft, model, config, list(keys))
    if trained and not plain:
        raise CheckpointError(
            f"the adapter in {folder} is not plain LoRA and cannot be trained here. Merge it first: "
            f"`drpo export {folder} --out DIR`."
        )
    if plain:
        _check_prefix(model, folder, keys)
    if not plain or merge:
        return _merged(peft, model, folder, config)
    _load_in_place(model, folder)
    if not trained and not any(bool(delta.any()) for delta in _deltas(model)):
        raise CheckpointError(_inert(folder))
    return model


def require_peft() -> Any:
    """The package peft.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise ConfigError(
            f"lora needs peft, which is not installed here ({error}). Install it with: " + install("lora")
        ) from error


def _read_config(peft: Any, folder: Path) -> Any:
    """peft's configuration of the adapter; what peft would pass over or run as code is refused."""
    file = folder / ADAPTER_FILE
    values = read_json(file)
    kind = values.get("peft_type")
    known = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    if not isinstance(kind, str) or kind not in {str(getattr(name, "value", name)) for name in known}:
        raise CheckpointError(
            f"{file}: peft {peft.__version__} does not know the peft_type {short(kind)!r}. Install "
            "the version that wrote it, or merge the adapter with that one."
        )
    settings = known[peft.PeftType(kind)]
    fields = {field.name for field in dataclasses.fields(settings)}
    unknown = sorted(key for key, value in values.items() if key not in fields and value not in (None, False, {}, []))
    if unknown:
        raise CheckpointError(
            f"{file}: peft {peft.__version__} does not know {short(', '.join(unknown))} and would ignore it. Install "
            "the version that wrote the adapter, or merge it with that one."
        )
    if values.get("megatron_config"):
        raise CheckpointError(f"{file}: megatron_config is not supported here. Merge the adapter where it was trained.")
    try:
        config = settings.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged: {short(error)}. Copy it again.") from error
    if getattr(config, "is_prompt_learning", False) or getattr(config, "is_adaption_prompt", False):
        raise CheckpointError(
            f"the adapter in {folder} ({kind}) adds prompts, which cannot be merged into weights. "
            "Only adapters of weights (LoRA, DoRA, IA3, OFT, …) can be used here."
        )
    return config


def _stays_in_place(peft: Any, model: Any, config: Any, keys: list[str]) -> bool:
    """Whether the adapter is W + (alpha / rank) · B A on linear layers other than the LM head, and nothing more."""
    if type(config) is not peft.LoraConfig or config.init_lora_weights not in (True, False, "gaussian"):
        return False
    usual = peft.LoraConfig()
    for field in dataclasses.fields(config):
        given, default = getattr(config, field.name), getattr(usual, field.name)
        # Empty and unset mean the same.
        if field.name not in _PLAIN and given != default and (given or default):
            return False
    head = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    inside = (".lora_A.", ".lora_B.")
    return all(any(part in key for part in inside) for key in keys) and not any(
        f".{name}.lora_" in f".{key}" for key in keys for name in head
    )


def _load_in_place(model: Any, folder: Path) -> None:
    try:
        info = model.load_adapter(str(folder), is_trainable=True, ignore_mismatched_sizes=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the adapter in {folder} does not fit {type(model).__name__}: {short(error)}. It needs "
            "the base that it was trained on."
        ) from error
    if info.mismatched_keys:
        name, theirs, ours = sorted(info.mismatched_keys)[0]
        raise CheckpointError(
            f"the adapter in {folder} does not fit {type(model).__name__}: {name} is {list(theirs)}, "
            f"the model needs {list(ours)}. It needs the base that it was trained on."
        )
    _check_names(model, folder, sorted(info.missing_keys), sorted(info.unexpected_keys))
    _check_finite(folder, {name: value for name, value in model.named_parameters() if ".lora_" in name})


def _merged(peft: Any, model: Any, folder: Path, config: Any) -> Any:
    from safetensors.torch import load_file

    ids = _probe(model)
    before = _fingerprints(model)
    try:
        with warnings.catch_warnings(action="ignore"):  # what is missing is an error, below
            adapted = peft.PeftModel.from_pretrained(model, str(folder), config=config, local_files_only=True)
        saved = load_file(folder / WEIGHTS_FILE)
        loaded = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
        whole = adapted.state_dict()
        _check_names(
            model, folder, sorted(loaded.keys() - saved.keys()), sorted(saved.keys() - loaded.keys() - whole.keys())
        )
        _check_finite(folder, loaded)
        adapted.eval()
        with torch.no_grad():
            expected = adapted(input_ids=ids).logits
            merged = adapted.merge_and_unload()
            found = merged(input_ids=ids).logits
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"the adapter in {folder} ({config.peft_type.value}) cannot be merged into "
            f"{type(model).__name__} by peft: {type(error).__name__}: {short(error)}. Use the base "
            "and the peft version that it was trained with."
        ) from error
    largest = max(1.0, float(expected.abs().max()))
    if not torch.allclose(found, expected, rtol=0, atol=_MERGE_TOLERANCE * largest):
        raise CheckpointError(
            f"the adapter in {folder} ({config.peft_type.value}) cannot be merged: the logits would "
            f"change by {float((found - expected).abs().max()):.2g}. It adapts weights that are tied "
            "to others (save the base with its LM head untied first), or changes more than weights."
        )
    after = _fingerprints(merged)
    if all(after.get(name) == value for name, value in before.items()):
        raise CheckpointError(_inert(folder))
    merged.requires_grad_(True)
    return merged


def _check_names(model: Any, folder: Path, missing: list[str], unexpected: list[str]) -> None:
    if not missing and not unexpected:
        return
    parts = []
    if missing:
        parts.append(f"{len(missing)} weights that its configuration asks for are missing ({examples(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} belong to no layer ({examples(unexpected)})")
    reason = likely_reason([*missing, *(name.replace(f".{ADAPTER_NAME}.", ".") for name in missing)], unexpected)
    raise CheckpointError(
        f"the adapter in {folder} does not fit {type(model).__name__}: {' and '.join(parts)}. "
        f"{reason or 'It needs the base that it was trained on, and its whole file.'}"
    )


def _check_prefix(model: Any, folder: Path, keys: Iterable[str]) -> None:
    """transformers takes names with the prefix of peft left out or repeated, and peft does not."""
    foreign = sorted(key for key in keys if not key.startswith(_PREFIX) or key.startswith(2 * _PREFIX))
    if foreign:
        raise CheckpointError(
            f"the adapter in {folder} does not fit {type(model).__name__}: {len(foreign)} of its "
            f"weights belong to no layer ({examples(foreign)}). The names of peft begin with "
            f"'{_PREFIX}', once: save the unwrapped model, or rename the weights in the file."
        )


def _check_finite(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    bad = [name for name, value in weights.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(f"the adapter in {folder} holds NaN or infinity ({examples(bad)}). Take an earlier one.")


def _deltas(model: Any) -> Any:
    """What the adapter adds to each of its matrices, one after the other."""
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "base_layer") and hasattr(module, "get_delta_weight"):
                yield module.get_delta_weight(ADAPTER_NAME)


def _inert(folder: Path) -> str:
    return (
        f"the adapter in {folder} changes nothing: it was never trained, or its weights are zero. Use its base, or "
        "a later checkpoint."
    )


def _probe(model: Any) -> torch.Tensor:
    """Token ids of two rows, at which two models are compared."""
    size = model.config.get_text_config().vocab_size
    return torch.randint(size, (2, 12), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _fingerprints(model: Any) -> dict[str, tuple[float, float]]:
    """Two sums over every weight: equal weights have equal ones."""
    return {
        name: (float(value.double().sum()), float(value.double().square().sum()))
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
