"""What a model directory holds, checked before anything of it is loaded: its configuration and its files of weights."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from drpo import files
from drpo.errors import ConfigError, DataError

#: Numbers that a weight may be stored in.
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_LARGEST_HEADER = 100_000_000
#: What the first bytes of a file say that is not what its name says.
_KINDS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: run `git lfs pull`, or download it again"),
    (b"<!DOCTYPE", "is a web page: download the file itself"),
    (b"<html", "is a web page: download the file itself"),
    (b"PK\x03\x04", "is a zip archive (torch.save writes those): save the weights with safetensors"),
    (b"\x80\x02", "is a pickle: save the weights with safetensors"),
    (b"GGUF", "is a GGUF file: give the weights that it was made from, as safetensors"),
)
#: Weights in other formats, and what to do.
_OTHER_FORMATS = (
    (
        "*.bin",
        'pickles, which are never loaded. Convert them where you trust them: python -c "from transformers '
        "import AutoModelForCausalLM as M; M.from_pretrained('{0}').save_pretrained('NEW')\", and copy the tokenizer",
    ),
    ("*.gguf", "GGUF, which is for inference. Give the weights that it was made from, as safetensors"),
    ("adapter_model.safetensors", "an adapter, and its adapter_config.json is missing. Restore that file"),
    ("model-*-of-*.safetensors", "shards, and model.safetensors.index.json, which lists them, is missing. Restore it"),
    ("consolidated*.safetensors", "in the vendor's own format. Download the Hugging Face files (model*.safetensors)"),
    ("diffusion_pytorch_model*", "a diffusers model. Give the directory of a language model"),
    ("*.distcp", "a distributed checkpoint. Gather it into one state dict and save it with save_pretrained"),
    ("*.pt", "pickles, which are never loaded. Save the model with save_pretrained"),
    ("*.pth", "pickles, which are never loaded. Save the model with save_pretrained"),
    ("*.h5", "TensorFlow's. Convert them with an older transformers: from_pretrained(…, from_tf=True)"),
    ("*.msgpack", "Flax's. Convert them with an older transformers: from_pretrained(…, from_flax=True)"),
    ("*.onnx", "ONNX. Give the model that it was exported from"),
    ("*.safetensors", "under names that no index lists. Save the model with save_pretrained"),
)


def read_json(file: Path) -> dict[str, Any]:
    """The mapping that a JSON ``file`` of a model directory holds.

    Raises:
        ConfigError: it holds something else, or cannot be read.
    """
    try:
        found = files.read_json(file)
    except DataError as error:
        with suppress(OSError):
            if what := _what_it_is(file.read_bytes()[:64]):
                raise ConfigError(f"model: {file} {what}.") from error
        raise ConfigError(f"model: {str(error).rstrip('.')}. Download it again.") from error
    if not isinstance(found, dict):
        raise ConfigError(
            f"model: {file} holds {type(found).__name__}, where a JSON object is expected. Download it again."
        )
    return found


def check_config(directory: Path, trust_remote_code: bool) -> dict[str, Any]:
    """The config.json of ``directory``, which says that it holds a causal LM that can be trained.

    Raises:
        ConfigError: it does not; quantized weights, other kinds of model, and code to be run among it.
    """
    file = directory / "config.json"
    config = read_json(file)
    if "_class_name" in config or "_diffusers_version" in config:
        raise ConfigError(
            f"model: {file} is of a diffusers model ({config.get('_class_name')}). Give the directory of "
            "a language model."
        )
    _refuse_quantized(directory, config)
    own_code = isinstance(config.get("auto_map"), dict) and trust_remote_code
    if not own_code:
        _check_architecture(directory, config)
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        if "/" in str(config.get(key)) and not trust_remote_code:
            raise ConfigError(
                f"model: {file} asks for a kernel from the Hub ({key}: {short(config[key])}), which is "
                "code. Remove that key, or set trust_remote_code=true if you trust it."
            )
    return config


def _refuse_quantized(directory: Path, config: dict[str, Any]) -> None:
    text = config.get("text_config")
    found = config.get("quantization_config") or (isinstance(text, dict) and text.get("quantization_config"))
    if not found:
        return
    method = found.get("quant_method", "unknown method") if isinstance(found, dict) else found
    raise ConfigError(
        f"model: {directory} holds quantized weights ({short(method)}, quantization_config in config."
        "json), which cannot be trained or evaluated here. Give the weights before quantization; "
        "rollout_precision=fp8 quantizes for sampling alone."
    )


def _check_architecture(directory: Path, config: dict[str, Any]) -> None:
    from transformers import CONFIG_MAPPING, __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    kind, classes = config.get("model_type"), config.get("architectures")
    named = f"architectures: {short(classes)}" if classes else "no architectures"
    if kind is None:
        raise ConfigError(
            f"model: {directory / 'config.json'} names no model_type ({named}), so that the model's "
            "class is unknown. Take config.json from where the weights come from."
        )
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        code = (
            " It comes with Python code of its own (auto_map), which is not run unless you set trust_remote_code=true."
            if config.get("auto_map")
            else " A newer transformers may know it."
        )
        raise ConfigError(
            f"model: transformers {__version__} does not know the model_type {short(kind)!r} of {directory}.{code}"
        )
    if config.get("is_encoder_decoder") is True:
        raise ConfigError(
            f"model: {directory} holds an encoder-decoder model ({kind}, {named}). A causal LM (decoder "
            "only) is needed."
        )
    if kind not in CAUSAL:
        raise ConfigError(
            f"model: {directory} holds a model of type {kind} ({named}), which is not a causal LM. Give "
            "a decoder-only language model."
        )


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that transformers loads from ``directory``: one, or the shards of its index.

    Raises:
        ConfigError: there are none, or a shard is missing.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    broken = next((file for file in (single, index) if file.is_symlink() and not file.exists()), None)
    if broken is not None:
        raise ConfigError(
            f"model: {broken} is a link to a file that is not there. Copy the files that links point to "
            "as well (cp -L), or download it again."
        )
    if single.exists():
        return [single]
    if not index.exists():
        raise ConfigError(_no_weights(directory))
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise ConfigError(f"model: {index} has no weight_map from names of weights to files. Download it again.")
    names = sorted(set(listed.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ConfigError(
            f"model: {index} names a file outside of its directory: {short(outside[0])}. Download it again."
        )
    lost = [name for name in names if not (directory / name).is_file()]
    if lost:
        raise ConfigError(
            f"model: {directory} lacks {len(lost)} of the {len(names)} files of weights that its index "
            f"lists (for example {lost[0]}). Download the missing ones."
        )
    return [directory / name for name in names]


def _no_weights(directory: Path) -> str:
    for pattern, what in _OTHER_FORMATS:
        found = sorted(directory.glob(pattern))
        if found:
            return (
                f"model: {directory} cannot be loaded as a causal LM: it has no model.safetensors, and its weights "
                f"({found[0].name}) are {what.format(directory)}."
            )
    return (
        f"model: {directory} cannot be loaded as a causal LM: it has a config.json and no weights "
        "(model.safetensors). Download them, for example with `hf download`."
    )


def read_header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """(dtype, shape) of every tensor of a safetensors ``file``, by name, from its header alone.

    Raises:
        ConfigError: the file is damaged, cut, or of another format.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(64)
            length = int.from_bytes(start[:8], "little")
            stream.seek(8)
            text = stream.read(length) if length <= min(size, _LARGEST_HEADER) else b""
    except OSError as error:
        raise ConfigError(
            f"model: {file} cannot be read: {error.strerror or error}. Fix its permissions, or download it again."
        ) from error
    try:
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        found = {name: (str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in entries.items()}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        reason = _what_it_is(start) or "is no safetensors file, or its start is damaged: download it again"
        raise ConfigError(f"model: {file} {reason}.") from error
    if size != 8 + length + end:
        how = "cut" if size < 8 + length + end else "longer than it should be"
        raise ConfigError(
            f"model: {file} is {how}: it has {size:,} bytes, and its header asks for "
            f"{8 + length + end:,}. Download it again."
        )
    if not found:
        raise ConfigError(f"model: {file} holds no tensors. Download it again, or save the model once more.")
    return found


def check_weight_files(paths: list[Path]) -> int:
    """Look into the header of every file; return how many numbers they hold in all.

    Raises:
        ConfigError: one is damaged, or holds weights that are no floating-point numbers.
    """
    numbers = 0
    for file in paths:
        for name, (dtype, shape) in read_header(file).items():
            numbers += math.prod(shape)
            if name.endswith(("weight", "proj")) and dtype not in FLOATS:
                raise ConfigError(
                    f"model: {name} of {file} is stored as {dtype} {list(shape)}: quantized weights, "
                    "which cannot be trained or evaluated here. Give weights in float32, bfloat16 or "
                    "float16."
                )
    return numbers


def _what_it_is(data: bytes) -> str | None:
    if not data.strip(b"\0 \t\r\n"):
        return "is empty: download it again" if not data else "holds nothing but zeros: download it again"
    return next((what for magic, what in _KINDS if data.startswith(magic)), None)


def short(value: Any, limit: int = 200) -> str:
    """``value`` as one line of at most ``limit`` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
