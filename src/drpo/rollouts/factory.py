"""The table of samplers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from drpo.errors import ConfigError, suggest
from drpo.rollouts.options import InProcessOptions, SamplerOptions, VllmOptions

#: Name → its settings.
SAMPLERS: dict[str, type[SamplerOptions]] = {
    "in_process": InProcessOptions,
    "vllm": VllmOptions,
}


def make_sampler_options(name: str, **parameters: Any) -> SamplerOptions:
    """The settings of the sampler ``name``.

    Raises:
        ConfigError: an unknown name or parameter (with the nearest known one), or a value that is not allowed.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"unknown sampler {name!r}.{suggest(name, SAMPLERS)}")
    cls = SAMPLERS[name]
    for parameter in parameters:
        if parameter not in cls.model_fields:
            raise ConfigError(f"sampler {name!r} has no parameter {parameter!r}.{suggest(parameter, cls.model_fields)}")
    try:
        return cls(**parameters)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(cls, problem) for problem in error.errors())) from error


def _explain(cls: type[BaseModel], problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return f"sampler: {message}"
    key = str(problem["loc"][0])
    described = cls.model_fields[key].description
    return f"sampler.{key}: {message[0].lower() + message[1:]}, got {problem['input']!r} ({described})"
