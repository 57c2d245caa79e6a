"""Settings as text: YAML files and ``key.sub=value``, read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from drpo.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written 3e-4 (YAML 1.1 takes that for a string)."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_yaml(file: str | Path | None) -> dict[str, Any]:
    """The mapping that a YAML file holds; numbers may be written 3e-4. Empty for None.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    if file is None:
        return {}
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}") from error
    try:
        values = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold 'key: value' lines, got a {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """``key.sub=value`` texts as nested values.

    Raises:
        ConfigError: one is not of that form.
    """
    values: dict[str, Any] = {}
    where: dict[str, Any]
    for override in overrides:
        path, equals, text = override.partition("=")
        *parents, leaf = path.split(".")
        if not equals or not all([*parents, leaf]):
            raise ConfigError(f"{override!r} is neither a file nor key=value. Write for example objective.delta=0.2")
        try:
            value = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"{override!r}: the value is not YAML ({error})") from error
        where = values
        for parent in parents:
            below = where.get(parent, {})
            inner: dict[str, Any] = {"name": below} if isinstance(below, str) else below
            where[parent] = inner
            where = inner
        if isinstance(where.get(leaf), dict) and isinstance(value, str):
            where[leaf]["name"] = value  # task.path=… task=jsonl, in either order
        else:
            where[leaf] = value
    return values


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def as_text(value: Any) -> str:
    """``value`` as :func:`parse_overrides` reads it back."""
    if isinstance(value, str) and re.fullmatch(r"[\w./:+-]+", value) and yaml.load(value, _Loader) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
