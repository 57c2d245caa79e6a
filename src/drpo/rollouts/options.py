"""The settings of samplers, and how each is made from its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, model_validator

from drpo.errors import ConfigError
from drpo.setting_types import STRICT

if TYPE_CHECKING:
    from drpo.model.policy import Policy
    from drpo.model.precision import Precision
    from drpo.rollouts.sampler import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerContext:
    """What a run says to its sampler beside the sampler's own settings.

    Args:
        precision: what to sample in.
        shares_model: whether what is sampled from is always, number for number, the trained model.
        engine_log: where the output of a process of its own goes; None: a temporary file.
        note: told of failures that were survived.
        report_support: whether rollouts have to report the tokens that truncated sampling drew from.
    """

    precision: Precision
    shares_model: bool
    engine_log: Path | None
    note: Callable[[str], None]
    report_support: bool = False


class SamplerOptions(BaseModel):
    """The settings of a sampler, one a field with its description. Imports of the sampler's own packages belong into
    :meth:`make`, so that reading a configuration needs none of them."""

    model_config = STRICT

    @property
    def positions(self) -> int | None:
        """The most tokens that a prompt with its response may have; None: as many as the model."""
        return None

    def make(self, policy: Policy, context: SamplerContext) -> Sampler:
        """A sampler from the present weights of ``policy``; to be closed.

        Raises:
            ConfigError: a package is missing, or a setting would be ignored on this device.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define make()")


class InProcessOptions(SamplerOptions):
    """Of :class:`drpo.rollouts.InProcessSampler`."""

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

    def make(self, policy: Policy, context: SamplerContext) -> Sampler:
        """One with the policy's own model where that is what it samples from, else with a copy."""
        from drpo.rollouts.copied import CopySampler
        from drpo.rollouts.in_process import InProcessSampler

        if context.shares_model:
            return InProcessSampler(policy.model, policy.stop_ids, **self.model_dump())
        return CopySampler(policy.model, context.precision, policy.stop_ids, **self.model_dump())


class VllmOptions(SamplerOptions):
    """Of :class:`drpo.rollouts.vllm.sampler.VllmSampler`."""

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
        description="share of GPU memory for vLLM, weights included; default on a GPU: 0.4",
    )
    sleep: bool = Field(default=False, description="release GPU memory while the trainer updates (GPU only)")
    eager: bool | None = Field(
        default=None,
        description="no compilation and no CUDA graphs: starts sooner, samples slower; always true on a CPU",
    )
    start_time_limit: float = Field(default=900.0, gt=0, description="seconds that the engine may take to start")
    batch_time_limit: float = Field(
        default=1800.0, gt=0, description="seconds that a batch may take; an engine that takes longer is replaced"
    )
    attempts: int = Field(default=3, ge=1, description="consecutive failures of the engine after which the run stops")

    @model_validator(mode="after")
    def _together(self) -> VllmOptions:
        if self.cache_gib is not None and self.gpu_memory_utilization is not None:
            raise ValueError("gpu_memory_utilization would be ignored beside cache_gib: give one of them")
        return self

    @property
    def positions(self) -> int | None:
        """See :class:`SamplerOptions`."""
        return self.max_length

    def make(self, policy: Policy, context: SamplerContext) -> Sampler:
        """An engine in a process of its own."""
        from drpo.model.lora import is_adapted, plain_weights
        from drpo.rollouts.vllm.sampler import VllmSampler, require_vllm

        require_vllm()
        dtype = "float32" if context.precision == "fp32" else "bfloat16"
        log, note = context.engine_log, context.note
        support = context.report_support
        sampler = VllmSampler(policy.model, policy.stop_ids, self, log, note, dtype=dtype, report_support=support)
        # vLLM knows whole matrices alone: an adapter that is evaluated is added into them.
        sampler.load_weights(plain_weights(policy.model) if is_adapted(policy.model) else policy.weights())
        return sampler

    def check_device(self, kind: str) -> None:
        """That nothing would be ignored on a device of this ``kind`` (cpu, cuda).

        Raises:
            ConfigError: naming the option.
        """
        if kind != "cpu":
            return
        if self.sleep:
            raise ConfigError("sampler.sleep=true: vLLM cannot sleep on a CPU. Leave it out, or train on a GPU.")
        if self.gpu_memory_utilization is not None:
            raise ConfigError(
                "sampler.gpu_memory_utilization would be ignored on a CPU. Leave it out; cache_gib is "
                "the memory of the cache."
            )
        if self.eager is False:
            raise ConfigError("sampler.eager=false would be ignored on a CPU, where nothing is compiled. Leave it out.")
