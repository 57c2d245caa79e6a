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
    """Packed tokens in float64, all of them ``[N]`` (the top-K fields ``[N, K]``).

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
    def diverging(self) -> torch.Tensor:
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
            **{
                name: values if values.dtype == torch.bool else values.to(dtype)
                for name, values in self.optional.items()
            },
        )


def _proximal(tokens: Tokens) -> torch.Tensor:
    """A trainer that disagrees a little with the rollout engine, never above 0."""
    wobble = 0.1 * torch.sin(7.0 * torch.arange(len(tokens), dtype=torch.float64))
    return (tokens.behavior_logprobs + wobble).clamp(max=-1e-3)


def _entropy(tokens: Tokens) -> torch.Tensor:
    return 0.1 + 0.3 * tokens.behavior_logprobs.abs().clamp(max=10)


def _share(logprobs: torch.Tensor, shares: Sequence[float]) -> torch.Tensor:
    """``[N, K]``: the rest of each distribution, 1 − p, divided up; log 0 becomes −1000."""
    rest = -logprobs.expm1()
    return (rest.unsqueeze(1) * torch.tensor(shares, dtype=torch.float64)).log().clamp(min=-1000)


def _is_sampled(tokens: Tokens) -> torch.Tensor:
    """The sampled token is the first of the top K at every second token, and not among them at the others."""
    sampled = torch.zeros(len(tokens), 4, dtype=torch.bool)
    sampled[::2, 0] = True
    return sampled


def _topk(logprobs: torch.Tensor, sampled: torch.Tensor, shares: Sequence[float]) -> torch.Tensor:
    """Four tokens: the sampled one (where ``sampled``) and three of the others, or four of the others."""
    return torch.where(sampled, logprobs.unsqueeze(1), _share(logprobs, shares))


def _topk_logprobs(tokens: Tokens) -> torch.Tensor:
    # Of the policy before the step that a test may take: the other tokens do not follow the sampled one there.
    return _topk(tokens.logprobs, _is_sampled(tokens), (0.1, 0.2, 0.2, 0.15))


def _topk_behavior_logprobs(tokens: Tokens) -> torch.Tensor:
    return _topk(tokens.behavior_logprobs, _is_sampled(tokens), (0.1, 0.4, 0.2, 0.1))


#: Optional field of TokenBatch → what to fill it with for an objective that needs it. Grows with the class.
OPTIONAL_FIELDS: dict[str, Callable[[Tokens], torch.Tensor]] = {
    "proximal_logprobs": _proximal,
    "entropy": _entropy,
    "topk_logprobs": _topk_logprobs,
    "topk_behavior_logprobs": _topk_behavior_logprobs,
    "topk_is_sampled": _is_sampled,
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
    """``[N]`` → ``[B, T]`` (``[N, K]`` → ``[B, T, K]``), with ``fill`` at the unused positions.

    The first position of every row is one of them.
    """
    width = max(lengths) + 2
    if values.dtype == torch.bool:
        fill = fill > 0
    out = torch.full((len(lengths), width, *values.shape[1:]), fill, dtype=values.dtype)
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
