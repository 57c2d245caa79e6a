"""The one place that loads models, tokenizers and adapters, and refuses what does not fit together.

transformers fills weights that a checkpoint lacks with random numbers and passes over those that it does not know.
Here the names, shapes and values of the checkpoint are compared with what the model needs, and a model that is not
wholly there is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch

from drpo.errors import ConfigError, DrpoError
from drpo.model.adapters import apply_adapter, base_of_adapter
from drpo.model.key_report import check_keys
from drpo.model.model_files import check_config, check_weight_files, read_json, short, weight_files
from drpo.model.source import ModelSource, find_source

#: Numbers that may be missing before the model is made and their names can be told (1 GiB in float32).
_TOO_SMALL = 2**28
#: A directory without any of these has no tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A causal LM in float32, in evaluation mode, with its tokenizer. ``notes`` are what the user should know of it."""

    model: Any
    tokenizer: Any
    source: ModelSource
    notes: tuple[str, ...] = ()


def load(
    name: str, *, base: str | None = None, trust_remote_code: bool = False, trained: bool = False, merge: bool = False
) -> Loaded:
    """The model and tokenizer that ``name`` means; of an adapter's directory, its base with the adapter.

    Args:
        name: a directory, ``embedded:NAME`` or ``org/name[@revision]``.
        base: the base of the adapter, where it is not (or no longer) what its configuration names.
        trust_remote_code: run Python files that come with the model.
        trained: the adapter goes on training: it stays beside its base, and may be fresh.
        merge: add the adapter to the weights of its base. Adapters other than plain LoRA are always merged.

    Raises:
        ConfigError: there is no such model, it is damaged or incomplete, it is no causal LM, or ``base`` is given and
            ``name`` is no adapter. CheckpointError: an adapter does not fit its base.
    """
    source = find_source(name, trust_remote_code)
    named = base_of_adapter(source.directory)
    if named is None:
        if base is not None:
            raise ConfigError(
                f"model: {name} is a whole model and not an adapter, so that the base {base} would be "
                "ignored. Leave it out."
            )
        model, notes = load_model(source.directory, trust_remote_code)
        return Loaded(model, load_tokenizer(source.directory, trust_remote_code), source, notes)
    found = _find_base(source.directory, named, base, trust_remote_code)
    model, notes = load_model(found.directory, trust_remote_code)
    has_tokenizer = any((source.directory / file).is_file() for file in TOKENIZER_FILES)
    tokenizer = load_tokenizer(source.directory if has_tokenizer else found.directory, trust_remote_code)
    model = apply_adapter(model, source.directory, trained=trained, merge=merge)
    return Loaded(model.eval(), tokenizer, source, notes)


def load_model(directory: Path, trust_remote_code: bool = False) -> tuple[Any, tuple[str, ...]]:
    """The causal LM of ``directory`` in float32, wholly from its files, and notes about it.

    Raises:
        ConfigError: see :func:`load`.
    """
    import transformers

    config = check_config(directory, trust_remote_code)
    _check_size(directory, check_weight_files(weight_files(directory)), trust_remote_code)
    generation = directory / "generation_config.json"
    if generation.is_file():
        read_json(generation)
    with _quiet():
        model, info = _translated(
            directory,
            lambda: transformers.AutoModelForCausalLM.from_pretrained(
                directory,
                local_files_only=True,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=trust_remote_code,
            ),
        )
    model.eval()
    notes = check_keys(model, info, directory)
    notes += _check_values(model, directory)
    _check_function(model, directory)
    if trust_remote_code and config.get("auto_map"):
        notes.append(
            f"warning: trust_remote_code=true: Python code from {directory} ran, with all rights of this process"
        )
    return model, tuple(notes)


def load_sketch(directory: Path, trust_remote_code: bool = False) -> Any:
    """The causal LM that config.json of ``directory`` describes, on the meta device: shapes without weights.

    Raises:
        ConfigError: it is no causal LM that transformers knows.
    """
    import transformers

    config = load_model_config(directory, trust_remote_code)

    def make() -> Any:
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)

    with _quiet():
        return _translated(directory, make)


def load_model_config(directory: Path, trust_remote_code: bool = False) -> Any:
    """The transformers configuration of the causal LM of ``directory``.

    Raises:
        ConfigError: it is no causal LM that transformers knows.
    """
    import transformers

    check_config(directory, trust_remote_code)
    with _quiet():
        return _translated(
            directory,
            lambda: transformers.AutoConfig.from_pretrained(
                directory, local_files_only=True, trust_remote_code=trust_remote_code
            ),
        )


def _find_base(folder: Path, named: str, given: str | None, trust_remote_code: bool) -> ModelSource:
    if not named and given is None:
        raise ConfigError(
            f"model: the adapter in {folder} does not name its base (base_model_name_or_path). Say where "
            "it is with model=DIR."
        )
    try:
        source = find_source(given or named, trust_remote_code)
    except ConfigError as error:
        if given is not None:
            raise
        raise ConfigError(
            f"model: the adapter in {folder} was trained on {named}, which is not here any more. Say "
            f"where it is now with model=DIR. ({error})"
        ) from error
    if base_of_adapter(source.directory) is not None:
        raise ConfigError(
            f"model: the base of the adapter in {folder}, {given or named}, is itself an adapter. Merge "
            f"that first: `drpo export {given or named} --out DIR`, then model=DIR."
        )
    return source


def load_tokenizer(directory: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer of ``directory``.

    Raises:
        ConfigError: there is none, or its files are damaged.
    """
    import transformers

    if not any((directory / file).is_file() for file in TOKENIZER_FILES):
        raise ConfigError(
            f"model: {directory} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json). Save "
            "it there with tokenizer.save_pretrained."
        )
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (directory / file).is_file():
            read_json(directory / file)
    with _quiet():
        return _translated(
            directory,
            lambda: transformers.AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=trust_remote_code
            ),
            "its tokenizer cannot be loaded",
        )


def _translated(directory: Path, load: Callable[[], Any], what: str = "it cannot be loaded as a causal LM") -> Any:
    """What ``load`` returns; whatever the libraries below raise of a directory that they cannot read, as one line."""
    try:
        return load()
    except (DrpoError, MemoryError):
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            reason = (
                "it needs Python code that comes with it, which is not run unless you set trust_remote_code="
                "true. Do that only if you trust it."
            )
        elif isinstance(error, ImportError):
            reason = f"{short(error)}. Install what is missing."
        else:
            reason = f"{type(error).__name__}: {short(error)}. Download it again, or save it with save_pretrained."
        raise ConfigError(f"model: {directory}: {what}: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports what it passes over, at length; :func:`check_keys` says it in a line."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@torch.no_grad()
def _check_values(model: Any, directory: Path) -> list[str]:
    """Refuse weights that are not finite and models that are dead; a note of matrices that are all zeros."""
    bad: list[str] = []
    zero: list[str] = []
    matrices = 0
    for name, value in model.state_dict().items():
        if not value.is_floating_point() or value.is_meta:
            continue
        # The sum of finite numbers may overflow; only then each is looked at.
        if not bool(value.sum().isfinite()) and not bool(value.isfinite().all()):
            bad.append(name)
        if value.dim() > 1:
            matrices += 1
            if not bool(value.any()):
                zero.append(name)
    if bad:
        raise ConfigError(
            f"model: {len(bad)} weights of {directory} hold NaN or infinity, for example {bad[0]}. Take "
            "an earlier checkpoint, or download it again."
        )
    ends = {
        id(part.weight)
        for part in (model.get_input_embeddings(), model.get_output_embeddings())
        if getattr(part, "weight", None) is not None
    }
    dead = [name for name in zero if id(_parameter(model, name)) in ends]
    if dead or (matrices and len(zero) == matrices):
        raise ConfigError(
            f"model: {directory}: {(dead or zero)[0]} is all zeros, so that the model computes nothing. "
            "Download it again."
        )
    return [f"{len(zero)} of {matrices} matrices are all zeros, for example {zero[0]}"] if zero else []


def _parameter(model: Any, name: str) -> Any:
    module, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(module), leaf)


@torch.no_grad()
def _check_function(model: Any, directory: Path) -> None:
    """Refuse a model that predicts nothing, and an encoder, which transformers loads as a causal LM (BERT, RoBERTa).

    A model that cannot be run at all is refused where it is first used, with what it was used for.
    """
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 10]]) % model.config.get_text_config().vocab_size
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, ImportError):
        return
    if not bool(logits.isfinite().all()) or bool((logits == logits[0, 0, 0]).all()):
        what = "the same for every token" if bool(logits.isfinite().all()) else "not finite"
        raise ConfigError(
            f"model: {directory} computes logits that are {what}: its weights are damaged. Take an "
            "earlier checkpoint, or download it again."
        )
    may_look_ahead = getattr(model.config, "is_decoder", None) is False
    if may_look_ahead and not torch.allclose(logits[0, :2], logits[1, :2], atol=1e-4):
        raise ConfigError(
            f"model: {directory} holds an encoder ({type(model).__name__}, is_decoder=false): a token's "
            "prediction sees later tokens. Give a decoder-only language model."
        )


def _check_size(directory: Path, held: int, trust_remote_code: bool) -> None:
    """Refuse a checkpoint that is far too small before memory is taken for the model that config.json describes."""
    with torch.random.fork_rng(devices=[]):
        sketch = load_sketch(directory, trust_remote_code)
    needed = sum(parameter.numel() for parameter in sketch.parameters())
    if needed - held > _TOO_SMALL:
        raise ConfigError(
            f"model: {directory} holds {held:,} numbers, and its config.json describes a model of "
            f"{needed:,}: weights are missing. Take config.json and weights from one place."
        )
