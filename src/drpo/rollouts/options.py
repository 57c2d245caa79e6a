"""The samplers there are, and the settings of each."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from drpo.errors import ConfigError, suggest
from drpo.setting_types import STRICT


class InProcessOptions(BaseModel):
    """Of :class:`drpo.rollouts.InProcessSampler`."""

    model_config = STRICT

    compiled: bool = Field(
        default=False,
        description="decode through torch.compile (CUDA graphs on a GPU); slower on a CPU, and the first batch of each "
        "shape waits for the compiler",
    )
    max_rows: int = Field(
        default=256,
        ge=1,
        description="responses generated at once, which bounds the KV cache; the responses to one prompt stay together",
    )


class VllmOptions(BaseModel):
    """Of :class:`drpo.rollouts.vllm.sampler.VllmSampler`."""

    model_config = STRICT

    max_length: int | None = Field(
        default=None, ge=1, description="longest prompt with its response, in tokens; default: the model's positions"
    )
    cache_gib: float | None = Field(
        default=None,
        gt=0,
        description="memory for keys and values; default: 1 on a CPU, on a GPU what gpu_memory_utilization leaves",
    )
    gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the card that vLLM may take, weights included; on a GPU the default is 0.4",
    )
    sleep: bool = Field(default=False, description="give the card's memory back while the trainer updates (GPU only)")
    eager: bool | None = Field(
        default=None, description="no compilation and no CUDA graphs: starts sooner, samples slower; on a CPU always"
    )
    start_time_limit: float = Field(default=900.0, gt=0, description="seconds that the engine may take to start")
    batch_time_limit: float = Field(
        default=1800.0, gt=0, description="seconds that a batch may take; an engine that takes longer is replaced"
    )
    attempts: int = Field(default=3, ge=1, description="failures of the engine in a row after which the run stops")

    @model_validator(mode="after")
    def _together(self) -> VllmOptions:
        if self.cache_gib is not None and self.gpu_memory_utilization is not None:
            raise ValueError("gpu_memory_utilization would be ignored beside cache_gib: give one of them")
        return self

    def check_device(self, kind: str) -> None:
        """That nothing would be ignored on a device of this ``kind`` (cpu, cuda).

        Raises:
            ConfigError: naming the option.
        """
        if kind != "cpu":
            return
        if self.sleep:
            raise ConfigError(
                "sampler.sleep=true: vLLM cannot sleep on a CPU, where there is no card's memory to give "
                "back. Leave it out, or train on a GPU."
            )
        if self.gpu_memory_utilization is not None:
            raise ConfigError(
                "sampler.gpu_memory_utilization would be ignored on a CPU. Leave it out; cache_gib is "
                "the memory of the cache."
            )
        if self.eager is False:
            raise ConfigError("sampler.eager=false would be ignored on a CPU, where nothing is compiled. Leave it out.")


SamplerOptions = InProcessOptions | VllmOptions
#: Name → its settings.
SAMPLERS: dict[str, type[InProcessOptions] | type[VllmOptions]] = {"in_process": InProcessOptions, "vllm": VllmOptions}


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
