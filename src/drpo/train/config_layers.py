"""From the defaults, files and a command line to one configuration, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from drpo.errors import ConfigError, suggest
from drpo.model.lora_settings import Lora
from drpo.train.config import SECTIONS, TrainConfig
from drpo.train.config_aliases import unknown_key
from drpo.train.config_text import as_text, flat, parse_overrides, read_yaml


def load_config(file: str | Path | None = None, overrides: Iterable[str] = ()) -> tuple[TrainConfig, dict[str, str]]:
    """The configuration from defaults, then ``file`` (YAML, or ``recipe:NAME``), then ``key.sub=value`` overrides.

    Naming another task or objective drops the parameters that belonged to the one before.

    Returns:
        the configuration, and for each dotted key where its value came from (``default``, the file, or
        ``command line``).

    Raises:
        ConfigError: the file cannot be read, a key is unknown (with the nearest known one), or a value is not
            allowed; all problems in one message.
    """
    return layer_config([(str(file), read_yaml(file)), ("command line", parse_overrides(overrides))])


def layer_config(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[TrainConfig, dict[str, str]]:
    """As :func:`load_config`, from the defaults and any number of layers: (source, values), the later ones winning.

    Raises:
        ConfigError: a key is unknown, or a value is not allowed; all problems in one message.
    """
    values = TrainConfig().as_dict()
    sources = dict.fromkeys(flat(values), "default")
    for source, layer in layers:
        sources |= dict.fromkeys(flat(_named(values, layer)), source)
        values = merge(values, layer)
    return validate_config(values), {key: sources[key] for key in flat(values)}


def merge(values: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """``layer`` over ``values``; of a task or objective that is named again, the parameters that it does not give
    stay, and of another one none do."""
    merged = dict(values)
    for key, given in _named(values, layer).items():
        before = merged.get(key)
        before = {"name": before} if isinstance(before, str) and key in SECTIONS else before
        if isinstance(before, Mapping) and isinstance(given, Mapping):
            same = given.get("name", before.get("name")) == before.get("name")
            given = {**before, **given} if same else given
        merged[key] = given
    return merged


def _named(values: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """``layer`` with the name alone of a task or objective written out."""
    return {
        key: {"name": given}
        if isinstance(given, str) and key in SECTIONS and isinstance(values.get(key), Mapping)
        else given
        for key, given in layer.items()
    }


def as_overrides(config: TrainConfig) -> list[str]:
    """The ``key.sub=value`` texts that make ``config`` from the defaults: what differs from them."""
    defaults, overrides = TrainConfig().as_dict(), []
    for key, value in config.as_dict().items():
        default = defaults[key]
        if default == {} and value != default:
            overrides.append(f"{key}={as_text(value)}")  # its keys are anybody's, and may hold dots
            continue
        known: dict[str, Any] = flat({key: default})
        if key in SECTIONS and value["name"] != default["name"]:
            known = {}  # naming another one drops the parameters of the one before
        for leaf, given in flat({key: value}).items():
            if leaf not in known or repr(known[leaf]) != repr(given):  # 1.0 and true are other values than 1
                overrides.append(f"{leaf}={as_text(given)}")
    return overrides


def validate_config(values: Mapping[str, Any]) -> TrainConfig:
    """The typed configuration of plain values.

    Raises:
        ConfigError: with every problem found.
    """
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _explain(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        if len(problem["loc"]) > 1:
            return f"unknown key {key!r}.{suggest(str(problem['loc'][-1]), Lora.model_fields)}"
        return unknown_key(key, list(TrainConfig.model_fields))
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return message
    described = TrainConfig.model_fields[str(problem["loc"][0])].description
    meaning = f" ({described})" if described else ""
    return f"{key}: {message[0].lower() + message[1:]}, got {problem['input']!r}{meaning}"
