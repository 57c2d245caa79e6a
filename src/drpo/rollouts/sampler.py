"""What a sampler is: token ids in; token ids and behavior log-probabilities out."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

from drpo.errors import ConfigError, DataError
from drpo.support import Support

StopReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParameters:
    """How to sample; the trainer applies the same temperature when it recomputes log π.

    Args:
        temperature: > 0; the logits are divided by it.
        max_new_tokens: tokens after which a response is cut off.
        top_p: in (0, 1]; only the fewest most likely tokens are drawn from that have this mass together.
        top_k: -1, or ≥ 1: only the k most likely tokens are drawn from.
        min_p: in [0, 1); only tokens are drawn from that are at least this times as likely as the most likely one.
            :mod:`drpo.rollouts.truncation` has the order of the three, and what happens to ties.
        report_support: whether to report, where one of the three is set, the tokens that each token was drawn from:
            log π has to be renormalized over the same ones.
        report_topk: how many of the most likely tokens to report at every position, with their log-probabilities;
            what is sampled stays the same.
        report_experts: whether to report the experts that each position went through (a mixture of experts, and a
            sampler whose ``reports_experts`` is True).

    Raises:
        ConfigError: a value out of its range.
    """

    temperature: float = 1.0
    max_new_tokens: int = 64
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    report_support: bool = True
    report_topk: int = 0
    report_experts: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(
                f"temperature must be a finite number > 0, got {self.temperature}. Greedy decoding (0) has no "
                "importance ratio; use a small temperature such as 0.01 for evaluation."
            )
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be ≥ 1, got {self.max_new_tokens}")
        if self.report_topk < 0:
            raise ConfigError(f"report_topk must be ≥ 0, got {self.report_topk}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be in (0, 1], got {self.top_p}; 1 keeps the whole vocabulary")
        if self.top_k != -1 and self.top_k < 1:
            raise ConfigError(f"top_k must be ≥ 1, or -1 for the whole vocabulary, got {self.top_k}")
        if not 0 <= self.min_p < 1:
            raise ConfigError(f"min_p must be in [0, 1), got {self.min_p}; 0 keeps the whole vocabulary")

    @property
    def is_truncated(self) -> bool:
        """Whether a part of the vocabulary may be left out."""
        return self.top_p < 1 or self.top_k != -1 or self.min_p > 0

    @property
    def truncation(self) -> str:
        """What is set of ``top_p``, ``top_k`` and ``min_p``, in words; empty where nothing is."""
        values = {"top_p": (self.top_p, 1.0), "top_k": (self.top_k, -1), "min_p": (self.min_p, 0.0)}
        return ", ".join(f"{name}={value:g}" for name, (value, neutral) in values.items() if value != neutral)

    @property
    def described(self) -> str:
        """The temperature, and what is truncated."""
        return f"temperature {self.temperature:g}" + (f", {self.truncation}" if self.is_truncated else "")


@dataclass(frozen=True, slots=True)
class Request:
    """``count`` responses to one prompt, drawn with ``seed``."""

    prompt_ids: Sequence[int]
    count: int
    seed: int

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise DataError("a prompt needs at least one token; give the task's prompts some text")
        if self.count < 1:
            raise DataError(f"count must be ≥ 1, got {self.count}")


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response.

    ``token_ids`` and ``behavior_logprobs`` (nats, at the sampling temperature, and renormalized over what truncated
    sampling kept) have one entry a sampled token, the stop token included. ``stop_reason`` is ``stop`` (a stop token
    was sampled) or ``length`` (cut off). ``topk_ids`` and ``topk_logprobs``, one list a sampled token, hold the most
    likely tokens under μ, most likely first, if they were asked for; where truncated sampling kept fewer, the others
    have log-probability :data:`drpo.support.OUTSIDE`. ``support``, if sampling was truncated and it was asked for: the
    tokens that each one was drawn from, on the CPU. ``experts`` ``[L + T − 1, M, K]`` (uint8 or int16, on the CPU), if
    asked for: what each of M routers chose at the positions of the prompt's L tokens and of all T sampled ones but the
    last, which no layer ever saw.
    """

    token_ids: list[int]
    behavior_logprobs: list[float]
    stop_reason: StopReason
    topk_ids: list[list[int]] | None = None
    topk_logprobs: list[list[float]] | None = None
    experts: torch.Tensor | None = field(default=None, compare=False, repr=False)
    support: Support | None = field(default=None, compare=False, repr=False)


class Sampler(Protocol):
    """Anything that samples from the weights it was last given.

    A sampler of a mixture of experts that can tell what its routers chose has an attribute ``reports_experts`` that is
    True; one without it is never asked for ``report_experts``.
    """

    def sample(self, requests: Sequence[Request], parameters: SamplingParameters) -> list[list[Response]]:
        """``count`` responses for each request, in order. The same requests, parameters and weights give the same
        responses."""
        ...

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """From now on, sample from these weights.

        Args:
            weights: by their names in the trained model's state dict, in any floating dtype; tied ones once. They are
                read during the call alone.
        """
        ...

    def close(self) -> None:
        """Give up processes and memory; nothing is sampled afterwards."""
        ...


def reports_experts(sampler: Sampler) -> bool:
    """Whether ``sampler`` may be asked for the experts it chose."""
    return getattr(sampler, "reports_experts", False)


def check_length(requests: Sequence[Request], parameters: SamplingParameters, limit: int | None) -> None:
    """That every prompt and its response fit into ``limit`` positions (None: any).

    Raises:
        DataError: one does not.
    """
    longest = max((len(request.prompt_ids) for request in requests), default=0)
    if limit is not None and longest + parameters.max_new_tokens > limit:
        fix = f"Lower max_new_tokens to {limit - longest} or less, or use" if longest < limit else "Use"
        raise DataError(
            f"a prompt of {longest} tokens and max_new_tokens={parameters.max_new_tokens} exceed the model's "
            f"{limit} positions. {fix} shorter prompts."
        )


def response_seeds(request: Request) -> list[int]:
    """For an engine that takes a seed for each response: one each, from the request's alone, in [0, 2^63)."""
    draw = random.Random(request.seed)
    return [draw.getrandbits(63) for _ in range(request.count)]
