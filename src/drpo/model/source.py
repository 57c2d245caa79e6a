"""Where a model comes from: a directory, an embedded base, or a name on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError
from drpo.run_checkpoints import checkpoint_folders
from drpo.run_directory import RunDirectory

ASSETS = Path(__file__).resolve().parent.parent / "assets"
#: The model that ships with the package.
SHIPPED = "arithmetic"
#: Every name NAME of ``embedded:NAME``; all but :data:`SHIPPED` lie in the folder ``bases`` of a clone.
EMBEDDED = (SHIPPED, "dense", "moe", "hybrid", "reasoner")
#: The environment variable that names the folder of the bases, for a package that is installed without a clone.
BASES_VARIABLE = "DRPO_BASES"
#: What tells an adapter's directory from a model's.
ADAPTER_FILE = "adapter_config.json"
_HUB_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w][\w./-]*))?")
#: What is downloaded of a repository: no pickles, no other formats, and no code.
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """``directory`` holds the model that ``name`` means; ``revision`` is its commit where it comes from the Hub."""

    name: str
    directory: Path
    revision: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For manifest.json."""
        return {"name": self.name, "directory": str(self.directory.absolute()), "revision": self.revision}


def find_model(name: str, trust_remote_code: bool = False, weights: bool = True) -> Path:
    """The directory of :func:`find_source`."""
    return find_source(name, trust_remote_code, weights).directory


def find_source(name: str, trust_remote_code: bool = False, weights: bool = True) -> ModelSource:
    """The model or adapter that ``name`` means: a path, ``embedded:NAME``, or ``org/name[@revision]`` on the Hub.

    A name on the Hub is looked up in transformers' cache, and downloaded only if it is not there.

    Args:
        name: what the key ``model`` of a configuration holds.
        trust_remote_code: download the repository's Python files as well.
        weights: download weights too, not only the configuration.

    Raises:
        ConfigError: there is no such model, or the directory holds neither a model nor an adapter.
    """
    source = _locate(name, trust_remote_code, weights)
    if any((source.directory / file).is_file() for file in ("config.json", ADAPTER_FILE)):
        return source
    if (source.directory / "model_index.json").is_file():
        raise ConfigError(
            f"model: {source.directory} holds a diffusers pipeline (model_index.json), not a causal LM. "
            "Give the directory of a language model."
        )
    gguf = sorted(file.name for file in source.directory.glob("*.gguf"))
    if gguf:
        raise ConfigError(
            f"model: {source.directory} holds only GGUF files ({gguf[0]}), which are for inference. Give "
            "the Hugging Face directory that they were made from (config.json, *.safetensors)."
        )
    if RunDirectory(source.directory).exists():
        raise ConfigError(_is_a_run(source.directory))
    inner = sorted(file.parent.name for file in source.directory.glob("*/config.json"))
    inside = f" One lies in a folder of it: {source.directory / inner[0]}." if inner else ""
    raise ConfigError(
        f"model: {source.directory} is not a Hugging Face model directory (no config.json). Give a "
        f"directory that model.save_pretrained wrote, or embedded:arithmetic.{inside}"
    )


def _is_a_run(directory: Path) -> str:
    """What to type instead of the directory of a run."""
    folders = checkpoint_folders(RunDirectory(directory).checkpoints)
    weights = f"model={folders[max(folders)]}" if folders else "its checkpoint, once there is one"
    return (
        f"model: {directory} is the directory of a run. To go on from it with its optimizer, type `drpo train --from "
        f"{directory} KEY=VALUE`; to start with its weights alone, {weights}."
    )


def bases_folder() -> Path:
    """The folder of the bases: what DRPO_BASES names, or else ``bases`` beside the source tree of this package."""
    named = os.environ.get(BASES_VARIABLE)
    return Path(named).expanduser() if named else Path(__file__).resolve().parents[3] / "bases"


def embedded_directory(name: str) -> Path:
    """The directory that ``embedded:name`` means.

    Raises:
        ConfigError: there is no such name, or its base is not on this machine.
    """
    if name not in EMBEDDED:
        raise ConfigError(f"model: no embedded model {name!r}. Known: {', '.join(EMBEDDED)}.")
    if name == SHIPPED:
        return ASSETS / name
    directory = bases_folder() / name
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"model: embedded:{name} is not part of the installed package, and {directory} does not hold it. Set "
            f"{BASES_VARIABLE} to the folder bases of a clone of drpo, or install the clone with pip install -e "
            "(docs/bases.md)."
        )
    return directory


def _locate(name: str, trust_remote_code: bool, weights: bool) -> ModelSource:
    if name.startswith("embedded:"):
        return ModelSource(name, embedded_directory(name.removeprefix("embedded:")))
    if "\0" in name or not name.strip():
        raise ConfigError(
            f"model: {name[:80]!r} is not the name of a model. Give a directory, org/name, or embedded:arithmetic."
        )
    try:
        directory = Path(name).expanduser()
        if directory.is_dir():
            return ModelSource(name, directory, _revision_of(directory))
        is_file, parent = directory.is_file(), Path(directory.parts[0]).exists()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"model: {name[:80]!r} cannot be looked up: {error}. Give a directory, or org/name.") from (
            error
        )
    if is_file:
        raise ConfigError(f"model: {name} is a file. Give the directory that holds config.json and the weights.")
    match = _HUB_NAME.fullmatch(name)
    if match is None or parent:
        raise ConfigError(
            f"model: no such directory: {name} is not a directory here. Give a directory that "
            "model.save_pretrained wrote, a name on the Hugging Face Hub (org/name), or "
            "embedded:arithmetic."
        )
    return _from_hub(name, match["repository"], match["revision"], trust_remote_code, weights)


def _from_hub(name: str, repository: str, revision: str | None, trust_remote_code: bool, weights: bool) -> ModelSource:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_SMALL_FILES, *(["*.safetensors"] if weights else []), *(["*.py"] if trust_remote_code else [])]
    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": patterns}
    try:
        directory = Path(huggingface_hub.snapshot_download(repository, local_files_only=True, **wanted))
        if not _is_whole(directory, weights):
            raise LocalEntryNotFoundError(f"{directory} is incomplete")
    except LocalEntryNotFoundError:
        try:
            directory = Path(huggingface_hub.snapshot_download(repository, **wanted))
            if huggingface_hub.constants.HF_HUB_OFFLINE and not _is_whole(directory, weights):
                raise LocalEntryNotFoundError(f"{directory} is incomplete")
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError, RuntimeError) as error:
            raise ConfigError(_not_available(name, repository, revision, error)) from error
    except HFValidationError as error:
        raise ConfigError(
            f"model: {name} is neither a directory here nor a name that the Hugging Face Hub allows ({error})."
        ) from error
    return ModelSource(name, directory, _revision_of(directory))


def _not_available(name: str, repository: str, revision: str | None, error: BaseException) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    at = "" if revision is None else f" --revision {revision}"
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        reason = "the Hugging Face Hub does not have it (or it is private, and no token is set)"
    elif constants.HF_HUB_OFFLINE:
        reason = "it is not (whole) in the cache, and HF_HUB_OFFLINE=1 forbids downloading it"
    else:
        first = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"it is not (whole) in the cache, and the Hub cannot be reached ({first[0][:160]})"
    return (
        f"model: {name} is not a directory here, and as a name on the Hugging Face Hub {reason}; the cache is "
        f"{constants.HF_HUB_CACHE}. Run `hf download {repository}{at}` where there is a network, or give a "
        "directory."
    )


def _is_whole(directory: Path, weights: bool) -> bool:
    """Whether the cached ``directory`` has a configuration and, if asked for, every file of weights."""
    if not any((directory / file).is_file() for file in ("config.json", ADAPTER_FILE)):
        return False
    if not weights:
        return True
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = set(re.findall(r'"([^"/]+\.safetensors)"', index.read_text(encoding="utf-8", errors="replace")))
        return all((directory / file).is_file() for file in names)
    return any(directory.glob("*.safetensors"))


def _revision_of(directory: Path) -> str | None:
    """The commit of a directory in the Hub's cache (…/snapshots/COMMIT); None for others."""
    path = directory.absolute()
    return path.name if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--") else None
