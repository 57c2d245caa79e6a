"""Which forward passes of a model are right: the trainer's and the sampler's faster ways against plain passes.

Shapes: ``N`` response tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from drpo.errors import ConfigError
from drpo.kernels import plain_head
from drpo.kernels.products import wide_dtype
from drpo.model.decoding.ways import Choice, reasons, sampling_choice
from drpo.model.forward import (
    EQUAL,
    PACKED,
    PADDED,
    SHARED,
    Sequences,
    at_places,
    in_groups,
    positions,
    response_states,
)
from drpo.model.probe import (
    CROSSED,
    Reference,
    describe,
    probes,
    reference,
    undisturbed,
    windows,
    without_cache,
)

#: Largest difference of a gradient, as a share of its largest entry, and the most numbers of a parameter watched.
GRADIENT, WATCHED = 1e-3, 1 << 24


@dataclass(frozen=True, slots=True)
class Passes:
    """How log π is made in the trainer and log μ in the in-process sampler, and how far each is from plain passes."""

    trainer: Choice
    sampler: Choice

    @property
    def pads(self) -> bool:
        """Whether sequences of different length go through the model together in the trainer."""
        return self.trainer.way != EQUAL

    def as_dict(self) -> dict[str, Any]:
        """For manifest.json."""
        return {"trainer": self.trainer.as_dict(), "sampler": self.sampler.as_dict()}

    def summary(self) -> str:
        """One line."""
        parts = [
            f"the {side} ({choice.way}) is within {choice.difference:.1e} nats of plain forward passes"
            for side, choice in (("trainer", self.trainer), ("sampler", self.sampler))
        ]
        slower = [*self.trainer.slower(), *self.sampler.slower()]
        unused = f"; not used: {', '.join(slower)}" if slower else ""
        return f"start check: {', '.join(parts)}{unused}"


def check_passes(model: Any) -> Passes:
    """Compare the ways of the trainer and of the in-process sampler with plain passes of a few tokens, each sequence
    alone without cache and padding, and choose the fastest that are right.

    The random state and the model are left as they were.

    Raises:
        ConfigError: the model is no causal LM over token ids, or none of the ways is right.
    """
    with undisturbed(model):
        references = [reference(model, probe) for probe in probes(model)]
        trainer = _training_choice(model, references)
    return Passes(trainer, sampling_choice(model, references))


def _training_choice(model: Any, references: Sequence[Reference]) -> Choice:
    head = plain_head(model)
    refused: dict[str, str] = {}
    if head is not None:
        unshared = _cannot_share(model)
        refused = {
            way: problem for way, problem in ((PACKED, unshared or _cannot_pack(model)), (SHARED, unshared)) if problem
        }
    for way in (PACKED, SHARED, PADDED, EQUAL) if head is not None else (PADDED, EQUAL):
        if way in refused:
            continue
        try:
            problem, largest = _try(model, head, references, way)
        # Other people's models raise whatever they like for a cache or a row that they do not take.
        except Exception as error:
            problem, largest = f"not possible ({describe(error)})", 0.0
        if problem is None:
            return Choice(way, largest, refused)
        refused[way] = problem
    raise ConfigError(f"model: {type(model).__name__} cannot be trained here: {reasons(refused)}.")


def _try(model: Any, head: torch.Tensor | None, references: Sequence[Reference], way: str) -> tuple[str | None, float]:
    """What is wrong with log π made in this ``way``, or None; and the largest difference."""
    largest = 0.0
    for right in references:
        apart = right.difference(_logprobs(model, head, _sequences(right), way))
        largest = max(largest, apart)
        if not apart <= right.tolerance:
            return f"{apart:.2g} nats from a plain pass", largest
    return (_gradient_problem(model, head, references[0], way) if way in (PACKED, SHARED) else None), largest


def _cannot_share(model: Any) -> str | None:
    """Why prompts cannot be shared, where trying a few tokens would not tell."""
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return "gradient checkpointing takes the cache away"
    if far := [window for window in windows(model) if window > CROSSED]:
        return f"attention is limited to {max(far)} tokens, too many to try"
    return None


def _cannot_pack(model: Any) -> str | None:
    """Why sequences cannot go side by side in one row, where trying a few tokens would not tell."""
    implementation = model.config.get_text_config()._attn_implementation
    return None if implementation == "sdpa" else f"its attention is {implementation} and not sdpa"


def _sequences(right: Reference) -> list[Sequences]:
    return [Sequences(prompt, response) for prompt, response in right.probe.pairs]


@torch.no_grad()
def _logprobs(model: Any, head: torch.Tensor | None, sequences: Sequence[Sequences], way: str) -> torch.Tensor:
    """log π ``[N, V]`` at the response tokens of ``sequences``, made as the trainer does."""
    key = (lambda length: length) if way == EQUAL else (lambda _: 0)
    return _log_softmax(in_groups(lambda part: _logits(model, head, part, way), sequences, key))


def _logits(model: Any, head: torch.Tensor | None, sequences: Sequence[Sequences], way: str) -> torch.Tensor:
    if head is None:
        ids, at = (part.to(model.device) for part in positions(sequences))
        return at_places(model(input_ids=ids, **without_cache(model)).logits, at)
    states = response_states(model.base_model, sequences, way)
    wide = wide_dtype(states)
    return states.to(wide) @ head.to(wide).T


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def _gradient_problem(model: Any, head: torch.Tensor | None, right: Reference, shared: str) -> str | None:
    """What is wrong with the gradient of the way ``shared``, which runs through common keys and values, or None."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Those of the first layer, whose gradient depends on all that follows; the embeddings are large.
    watched = [parameter for parameter in trained[1:12] if parameter.numel() <= WATCHED]
    if not watched or not right.exact:
        return None
    sequences, gradients = _sequences(right), []
    for way in (shared, PADDED):
        with torch.enable_grad():
            logprobs = _log_softmax(_logits(model, head, sequences, way))
            target = torch.tensor([t for s in sequences for t in s.token_ids], device=logprobs.device)
            total = logprobs.gather(1, target.unsqueeze(1)).sum()
            parts = torch.autograd.grad(total, watched, allow_unused=True, materialize_grads=True)
            gradients.append(torch.cat([part.flatten() for part in parts]))
    found, whole = gradients
    if float((found - whole).abs().max()) <= GRADIENT * float(whole.abs().max()):
        return None
    return "its gradient is not that of whole sequences"
