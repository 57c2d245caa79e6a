"""A policy as a plain Hugging Face model: any adapter merged, no optimizer beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from drpo.errors import ConfigError, WriteError
from drpo.files import growing_folder
from drpo.model.adapters import base_of_adapter
from drpo.model.loading import load


@dataclass(frozen=True, slots=True)
class Exported:
    """Whether an adapter was ``merged``, and what the user should know of the files."""

    merged: bool
    notes: tuple[str, ...]


def export_model(source: str, out: Path, base: str | None = None, trust_remote_code: bool = False) -> Exported:
    """Write the model that ``source`` (as the key ``model``) holds to the new directory ``out``, in float32.

    It is written beside ``out`` under a temporary name, and renamed once it is whole and on the disk.

    Args:
        source: a directory of a model or adapter, a name on the Hub, or embedded:NAME.
        out: must not exist, or be an empty directory.
        base: where the base of an adapter is, if not where the adapter says.
        trust_remote_code: run Python files that come with the model.

    Raises:
        ConfigError: ``out`` exists, or ``source`` is no model. CheckpointError: an adapter does not fit, or changes
            nothing. WriteError: the disk refuses.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise ConfigError(f"--out {out} exists. Choose another directory, or remove it")
    loaded = load(source, base=base, trust_remote_code=trust_remote_code, merge=True)
    try:
        with growing_folder(out) as folder:
            loaded.model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise WriteError(f"cannot write {out}: {error}. Free space or choose another --out") from error
    return Exported(base_of_adapter(loaded.source.directory) is not None, loaded.notes)
