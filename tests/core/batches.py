"""Token data for the tests of the core, kept apart from the classes under test so that references can use it.

Shapes: ``N`` tokens, ``B`` sequences, ``T`` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from drpo import Objective, TokenBatch

#: log-odds of the smallest and largest probability drawn: 1e-8 and 1 − 1e-7.
LOWEST_LOGIT, HIGHEST_LOGIT = -18.42068, 16.11809


@dataclass(frozen=True)
class Tokens:
    """Packed tokens in float64, all of them ``[N]``.

    ``optional`` holds what only some objectives read: tensors, typed loosely because they are passed on as
    keyword arguments.
    """

    logprobs: torch.Tensor
    behavior_logprobs: torch.Tensor
    advantages: torch.Tensor
    sequence_ids: torch.Tensor
    optional: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.logprobs)

    @property
    def ratio(self) -> torch.Tensor:
        return (self.logprobs - self.behavior_logprobs).exp()

    @property
    def shift(self) -> torch.Tensor:
        return self.logprobs.exp() - self.behavior_logprobs.exp()

    @property
    def harmful(self) -> torch.Tensor:
        return self.advantages * (self.logprobs - self.behavior_logprobs) > 0

    def at(self, logprobs: torch.Tensor) -> Tokens:
        return replace(self, logprobs=logprobs)

    def select(self, keep: torch.Tensor) -> Tokens:
        return Tokens(
            self.logprobs[keep],
            self.behavior_logprobs[keep],
            self.advantages[keep],
            self.sequence_ids[keep],
            {name: values[keep] for name, values in self.optional.items()},
        )

    def lengths(self) -> list[int]:
        return self.sequence_ids.unique_consecutive(return_counts=True)[1].tolist()

    def batch(self, dtype: torch.dtype = torch.float64, requires_grad: bool = False) -> TokenBatch:
        return TokenBatch(
            self.logprobs.to(dtype).clone().requires_grad_(requires_grad),
            self.behavior_logprobs.to(dtype),
            self.advantages.to(dtype),
            sequence_ids=self.sequence_ids,
            **{name: values.to(dtype) for name, values in self.optional.items()},
        )


def _proximal(tokens: Tokens) -> torch.Tensor:
    """A trainer that disagrees a little with the rollout engine, never above 0."""
    wobble = 0.1 * torch.sin(7.0 * torch.arange(len(tokens), dtype=torch.float64))
    return (tokens.behavior_logprobs + wobble).clamp(max=-1e-3)


def _entropy(tokens: Tokens) -> torch.Tensor:
    return 0.1 + 0.3 * tokens.behavior_logprobs.abs().clamp(max=10)


#: Optional field of TokenBatch → what to fill it with for an objective that needs it. Grows with the class.
OPTIONAL_FIELDS: dict[str, Callable[[Tokens], torch.Tensor]] = {
    "proximal_logprobs": _proximal,
    "entropy": _entropy,
}


def with_needs(tokens: Tokens, needs: Iterable[str]) -> Tokens:
    """The same tokens with the optional fields that an objective declares in ``needs``."""
    unknown = set(needs) - set(OPTIONAL_FIELDS)
    assert not unknown, f"tests/core/batches.py does not know how to fill {unknown}: add it to OPTIONAL_FIELDS"
    return replace(tokens, optional={name: OPTIONAL_FIELDS[name](tokens) for name in needs})


def tokens_from_probabilities(
    pi: Sequence[float],
    mu: Sequence[float],
    advantages: Sequence[float],
    sequence_ids: Sequence[int] | None = None,
) -> Tokens:
    return Tokens(
        torch.tensor(pi, dtype=torch.float64).log(),
        torch.tensor(mu, dtype=torch.float64).log(),
        torch.tensor(advantages, dtype=torch.float64),
        torch.tensor([0] * len(pi) if sequence_ids is None else sequence_ids),
    )


def random_tokens(
    seed: int, lengths: Sequence[int] = (5, 1, 7, 3), objective: Objective | None = None, spread: float = 0.8
) -> Tokens:
    """Tokens of sequences with the given lengths, π within about e^±``spread`` of μ.

    Advantages differ from token to token, or from sequence to sequence for an objective that couples tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.int64))
    n = len(ids)

    def normal(count: int) -> torch.Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    log_odds = 2.0 * normal(n)
    advantages = normal(n) if objective is None or objective.token_local else normal(len(lengths))[ids]
    tokens = Tokens(logsigmoid(log_odds + spread * normal(n)), logsigmoid(log_odds), advantages, ids)
    return with_needs(tokens, objective.needs if objective is not None else ())


def pad(values: torch.Tensor, lengths: Sequence[int], fill: float) -> torch.Tensor:
    """``[N]`` → ``[B, T]`` with ``fill`` at the unused positions, the first of every row among them."""
    width = max(lengths) + 2
    out = torch.full((len(lengths), width), fill, dtype=values.dtype)
    for row, part in enumerate(values.split(list(lengths))):
        out[row, 1 : 1 + len(part)] = part
    return out


def pad_mask(lengths: Sequence[int]) -> torch.Tensor:
    return pad(torch.ones(sum(lengths)), lengths, 0.0).bool()


@st.composite
def token_batches(draw: st.DrawFn, max_tokens: int = 12, zero_advantages: bool = False) -> Tokens:
    """Random tokens: μ from 1e-8 to 1 − 1e-7; π anywhere in that range, or close to μ, or equal to it."""
    log_odds = st.floats(LOWEST_LOGIT, HIGHEST_LOGIT)
    size = st.floats(1e-3, 10.0)
    advantage = st.tuples(size, st.sampled_from([-1.0, 1.0] + [0.0] * zero_advantages)).map(lambda t: t[0] * t[1])
    token = st.tuples(log_odds, st.one_of(log_odds, st.floats(-0.5, 0.5).map(lambda step: (step,))), advantage)
    rows = draw(st.lists(token, min_size=1, max_size=max_tokens))
    mu = [row[0] for row in rows]
    pi = [row[0] + row[1][0] if isinstance(row[1], tuple) else row[1] for row in rows]
    steps = draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    return Tokens(
        logsigmoid(torch.tensor(pi, dtype=torch.float64)),
        logsigmoid(torch.tensor(mu, dtype=torch.float64)),
        torch.tensor([row[2] for row in rows], dtype=torch.float64),
        torch.tensor(steps).cumsum(0),
    )
