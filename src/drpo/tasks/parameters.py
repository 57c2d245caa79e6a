"""Checking the parameters of a task against what its class takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from drpo.errors import ConfigError, suggest


def check_parameters(name: str, factory: type, parameters: Mapping[str, Any]) -> None:
    """Every parameter is one that the class takes by name, and none that it requires is missing.

    Raises:
        ConfigError: naming the parameter and those that exist.
    """
    known = {
        key: parameter
        for key, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    open_ended = any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(factory).parameters.values()
    )
    for key in parameters:
        if key not in known and not open_ended:
            raise unknown_parameter(f"task {name!r}", key, parameters[key], known)
    missing = [
        key for key, parameter in known.items() if parameter.default is parameter.empty and key not in parameters
    ]
    if missing:
        raise ConfigError(
            f"task {name!r} needs the parameter{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}. It takes: {', '.join(known)}."
        )


def unknown_parameter(task: str, key: str, value: Any, known: Iterable[str]) -> ConfigError:
    """The error about a parameter that a task does not take; a file is told which tasks read one."""
    known = list(known)
    if "path" not in known and key in ("path", "dataset", "heldout_path", "prompt_column", "answer_column"):
        return ConfigError(
            f"{task} reads no data and has no parameter {key!r}. Tasks that do: task=jsonl (a prompt "
            "and an answer, exact match) and task=math (graded by math-verify). Type task=jsonl or "
            f"task=math beside task.{key}={value}"
        )
    return ConfigError(f"{task} has no parameter {key!r}.{suggest(key, known)}")
