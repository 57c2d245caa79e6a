"""Which way of sampling gives the log-probabilities of a plain forward pass, found out by trying.

Shapes: ``R`` rows still generating, ``N`` response tokens, ``V`` vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from drpo.errors import ConfigError
from drpo.model.decoding.decoder import WAYS, Forward, prefill
from drpo.model.probe import Probe, Reference, describe, probes, reference, undisturbed


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest way that is right, its largest ``difference`` from plain passes in nats, and why faster ones are
    not used (way → reason, in parentheses what the model raised)."""

    way: str
    difference: float
    refused: dict[str, str] = field(default_factory=dict)

    def slower(self) -> list[str]:
        """The faster ways and why they are not used, without what the model raised."""
        return [f"{way} ({reason.split(' (')[0]})" for way, reason in self.refused.items()]

    def as_dict(self) -> dict[str, Any]:
        """For manifest.json."""
        return {"way": self.way, "difference": self.difference, "refused": self.refused}


#: What was found, by model: a sampler may be made anew for every batch.
_FOUND: weakref.WeakKeyDictionary[Any, Choice] = weakref.WeakKeyDictionary()


def sampling_choice(model: Any, references: Sequence[Reference] | None = None) -> Choice:
    """The way of sampling from ``model``, measured once in a model's life.

    Args:
        model: any causal LM of transformers, whole in this process.
        references: plain passes of the model that are there already.

    Raises:
        ConfigError: it is no causal LM over token ids, see :func:`drpo.model.probe.reference`.
    """
    if model not in _FOUND:
        with undisturbed(model), torch.inference_mode():
            _FOUND[model] = _measure(model, references or [reference(model, probe) for probe in probes(model)])
    return _FOUND[model]


def inherit_choice(model: Any, original: Any) -> None:
    """Sample from ``model``, a copy of ``original``, in the same way: rounding in less precision hides differences."""
    _FOUND[model] = sampling_choice(original)


def _measure(model: Any, references: Sequence[Reference]) -> Choice:
    forward = Forward(model)
    refused: dict[str, str] = {}
    for way in WAYS[0 if forward.lean is not None else 1 :]:
        if way in refused:  # another way came down to it
            continue
        forward.way = way
        problem, largest = None, 0.0
        for right in references:
            problem, apart = _try(forward, right)
            largest = max(largest, apart)
            if problem is not None:
                break
        if problem is None:
            return Choice(forward.way, largest, refused)
        refused[forward.way] = problem
    raise ConfigError(f"model: {type(model).__name__} cannot be sampled from here: {reasons(refused)}.")


def reasons(refused: dict[str, str]) -> str:
    """Why no way is right, in one line."""
    return "; ".join(f"{way}: {reason}" for way, reason in refused.items())


def _try(forward: Forward, right: Reference) -> tuple[str | None, float]:
    """What is wrong with sampling ``forward``'s way, or None; and the largest difference."""
    try:
        found = decode(forward, right.probe)
    # Other people's models raise whatever they like for a cache or a mask that they do not take.
    except Exception as error:
        return f"not possible ({describe(error)})", 0.0
    apart = right.difference(found)
    return (None if apart <= right.tolerance else f"{apart:.2g} nats from a plain pass"), apart


def decode(forward: Forward, probe: Probe) -> torch.Tensor:
    """log μ ``[N, V]`` before every response token of ``probe``, decoded as a sampler would that draws these tokens."""
    pairs = probe.pairs
    groups = [range(len(pairs))]
    if not forward.pads:
        starts = [sum(map(len, probe.responses[:i])) for i in range(len(probe.prompts) + 1)]
        groups = [range(a, b) for a, b in pairwise(starts)]
    parts: dict[int, list[torch.Tensor]] = {row: [] for row in range(len(pairs))}
    for group in groups:
        prompts = list(dict.fromkeys(pairs[row][0] for row in group))
        counts = [sum(pairs[row][0] == prompt for row in group) for prompt in prompts]
        responses = [pairs[row][1] for row in group]
        rows = torch.tensor(list(group))
        logits, decoding = prefill(forward, prompts, counts, max(map(len, responses)))
        for step in range(max(map(len, responses))):
            logprobs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
            # As in a sampler, a row that ended stays until it is dropped.
            ended = torch.tensor([step + 1 >= len(pairs[row][1]) for row in rows.tolist()])
            for place, row in enumerate(rows.tolist()):
                if step < len(pairs[row][1]):
                    parts[row].append(logprobs[place])
            left = len(rows) - int(ended.sum())
            if not left:
                break
            chosen = torch.tensor([pairs[row][1][min(step, len(pairs[row][1]) - 1)] for row in rows.tolist()])
            kept = decoding.drop(ended.to(logits.device), left)
            if kept is not None:
                rows, chosen = rows[kept.cpu()], chosen[kept.cpu()]
            logits = decoding.next_logits(chosen.to(logits.device))
    return torch.cat([torch.stack(parts[row]) for row in range(len(pairs))])
