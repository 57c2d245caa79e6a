"""What a trainer and the process of its rollout engine say to each other, pickled, one reply to each message.

trainer → engine      engine → trainer
Start                 Ready, or Refused
Batch                 Sampled, or Refused
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drpo.rollouts.engine.shared_weights import Entry
from drpo.rollouts.options import VllmOptions
from drpo.rollouts.sampler import Request, Response, SamplingParameters


@dataclass(frozen=True, slots=True)
class Start:
    """Make an engine for the model whose config.json is in ``directory``, without weights.

    ``dtype`` is what it computes in; ``weights`` the inherited descriptor that they are read from; ``device`` is cpu
    or cuda; ``support`` whether it is to report what truncated sampling drew from.
    """

    directory: str
    dtype: str
    options: VllmOptions
    weights: int
    device: str
    support: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Sample; ``new_weights``, if they changed since the batch before, are to be loaded first.

    ``entries`` say where all weights lie.
    """

    requests: Sequence[Request]
    parameters: SamplingParameters
    stop_ids: Sequence[int]
    entries: list[Entry]
    new_weights: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine can sample."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Responses by request, as :meth:`drpo.rollouts.Sampler.sample` returns them."""

    groups: list[list[Response]]


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine raised; ``reason`` is its error on one line."""

    reason: str


Message = Start | Batch
Reply = Ready | Sampled | Refused
