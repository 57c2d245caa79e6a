"""From the parameters of a run to the configuration of one reasoning-gym data set.

A run's parameters come from YAML or a command line, so enum members, dates and nested dataclasses arrive as
strings and mappings.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import traceback
import types
import typing
from collections.abc import Mapping
from typing import Any

from drpo.errors import ConfigError, suggest
from drpo.tasks.parameters import unknown_parameter

#: Parameters that the task sets itself, and why.
RESERVED = {
    "seed": "the task seeds every example itself, from the run's own seed and the example's place in the stream",
    "size": "the task generates as many examples as are asked for",
}


def build_config(name: str, config_class: type, parameters: Mapping[str, Any]) -> Any:
    """The data set's configuration with these parameters, validated by the library.

    Args:
        name: what messages call the task.
        config_class: the library's dataclass of settings.
        parameters: its fields, by name.

    Raises:
        ConfigError: a parameter is unknown, reserved, of the wrong type, or refused by the library.
    """
    annotations = typing.get_type_hints(config_class)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    known = fields.keys() - RESERVED
    values: dict[str, Any] = {}
    for key, value in parameters.items():
        if key in RESERVED:
            raise ConfigError(f"{name}: {key} cannot be set: {RESERVED[key]}. Leave it out.")
        if key not in known:
            raise unknown_parameter(name, key, value, known)
        _check_plain_type(f"{name}: {key}", value, annotations[key], fields[key].default)
        values[key] = _convert(f"{name}: {key}", value, annotations[key])
    # One item, generated at a time; the seed is a stand-in until an example has its own.
    config = config_class(**values, seed=0, size=1)
    try:
        if hasattr(config, "validate"):
            config.validate()
    except Exception as error:
        raise ConfigError(f"{name} refuses {given(parameters)}: {reason(error)}") from error
    return config


def given(parameters: Mapping[str, Any]) -> str:
    """The parameters as a message shows them."""
    return ", ".join(f"{key}={value!r}" for key, value in parameters.items()) or "to have no parameter"


def reason(error: Exception) -> str:
    """Why the library refused: its message, or the line of a bare ``assert``."""
    if str(error):
        return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    line = frames[-1].line if frames else None
    return f"{type(error).__name__} at `{line}`" if line else type(error).__name__


def _check_plain_type(what: str, value: Any, annotation: Any, default: Any) -> None:
    """Numbers, booleans and strings are checked here: the library finds a wrong type late or never.

    Only where the default is of the annotated type, as some of the library's annotations are wrong.
    """
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    if annotation not in plain or type(default) is not annotation or type(value) is annotation:
        return
    if not (annotation is float and type(value) is int):
        raise ConfigError(f"{what} must be {plain[annotation]}, like its default {default!r}; got {value!r}")


def _convert(what: str, value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation`` has it, where that is a type that YAML cannot write; otherwise as it is."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType) and value is not None:
        inner = [argument for argument in arguments if argument is not type(None)]
        return _convert(what, value, inner[0]) if len(inner) == 1 else value
    if origin is list and isinstance(value, list | tuple):
        return [_convert(what, item, arguments[0]) for item in value]
    if (origin or annotation) is tuple and isinstance(value, list):
        return tuple(value)
    if not isinstance(annotation, type):
        return value
    if issubclass(annotation, enum.Enum):
        return _enum_member(what, value, annotation)
    if annotation in (datetime.date, datetime.time) and isinstance(value, str):
        return _date_or_time(what, value, annotation)
    if dataclasses.is_dataclass(annotation) and isinstance(value, Mapping):
        return _nested(what, value, annotation)
    return value


def _enum_member(what: str, value: Any, kind: type[enum.Enum]) -> enum.Enum:
    if isinstance(value, kind):
        return value
    members = {str(member.value).lower(): member for member in kind}
    members |= {name.lower(): member for name, member in kind.__members__.items()}
    member = members.get(str(value).lower())
    if member is None:
        raise ConfigError(f"{what}: unknown value {value!r}.{suggest(str(value), members)}")
    return member


def _date_or_time(what: str, value: str, kind: type[datetime.date] | type[datetime.time]) -> Any:
    try:
        return kind.fromisoformat(value)
    except ValueError as error:
        example = "2024-12-31" if kind is datetime.date else "18:30"
        raise ConfigError(f"{what}: a {kind.__name__} such as {example} is needed, got {value!r}") from error


def _nested(what: str, value: Mapping[str, Any], kind: type) -> Any:
    annotations = typing.get_type_hints(kind)
    for key in value:
        if key not in annotations:
            raise ConfigError(f"{what}: unknown key {key!r}.{suggest(str(key), annotations)}")
    inner = value.get("config")
    if isinstance(inner, Mapping):  # the specification of one member of the composite data set
        for key in RESERVED.keys() & inner.keys():
            raise ConfigError(f"{what}: {key} cannot be set: {RESERVED[key]}. Leave it out.")
    try:
        return kind(**{key: _convert(f"{what}.{key}", item, annotations[key]) for key, item in value.items()})
    except TypeError as error:
        raise ConfigError(f"{what}: {error}. Its keys are {', '.join(annotations)}.") from error
