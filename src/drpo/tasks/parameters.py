"""Checking the parameters of a task against what its class takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from drpo.errors import ConfigError, suggest


def check_parameters(name: str, factory: type, parameters: Mapping[str, Any]) -> None:
    """Every parameter is one that the class takes by name, and none that it requires is missing.

    Raises:
        ConfigError: naming the parameter and those that exist.
    """
    known = {key: parameter for key, parameter in inspect.signature(factory).parameters.items()
             if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD
                     for parameter in inspect.signature(factory).parameters.values())
    for key in parameters:
        if key not in known and not open_ended:
            raise ConfigError(f"task {name!r} has no parameter {key!r}.{suggest(key, known)}")
    missing = [key for key, parameter in known.items()
               if parameter.default is parameter.empty and key not in parameters]
    if missing:
        raise ConfigError(f"task {name!r} needs the parameter{'s' * (len(missing) > 1)} "
                          f"{', '.join(missing)}. It takes: {', '.join(known)}.")
