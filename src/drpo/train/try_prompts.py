"""Answers to a few prompts, with the probability of every token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drpo.model.policy import Policy
from drpo.rollouts import Request, Response, Sampler, SamplingParameters
from drpo.tasks.base import Example
from drpo.train.seeds import derive_seed

#: A character that is not complete yet.
_PARTIAL = "\ufffd"


@dataclass(frozen=True, slots=True)
class Token:
    """A sampled token: its ``text`` (empty while a character is not complete), and its probability when it was drawn.

    ``ends`` is True for a token that is no part of the text, such as the one that ends a response.
    """

    id: int
    text: str
    probability: float
    ends: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to a prompt."""

    text: str
    tokens: list[Token]
    stop_reason: str


def answers(
    policy: Policy, sampler: Sampler, examples: Sequence[Example], count: int, parameters: SamplingParameters, seed: int
) -> list[list[Answer]]:
    """``count`` answers to each of ``examples``, the prompts encoded as in training.

    Args:
        policy: encodes and decodes.
        sampler: gives the responses.
        examples: the prompts.
        count: answers to each.
        parameters: how to sample.
        seed: the same seed, prompts and weights give the same answers.
    """
    requests = [
        Request(policy.encode(example.prompt, example.chat, example.turns), count, derive_seed(seed, "sample", row))
        for row, example in enumerate(examples)
    ]
    return [[_answer(policy, response) for response in group] for group in sampler.sample(requests, parameters)]


def _answer(policy: Policy, response: Response) -> Answer:
    texts = token_texts(response.token_ids, lambda ids: policy.tokenizer.decode(ids, skip_special_tokens=False))
    tokens = [
        Token(token, text, math.exp(logprob), policy.decode([token]) == "" and text != "")
        for token, text, logprob in zip(response.token_ids, texts, response.behavior_logprobs, strict=True)
    ]
    return Answer(policy.decode(response.token_ids), tokens, response.stop_reason)


def token_texts(ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """What each token adds to the text; a character of several tokens belongs to the last of them."""
    texts: list[str] = []
    start = done = 0  # decoded together since ``start``, told up to ``done``
    for end in range(1, len(ids) + 1):
        before, now = decode(list(ids[start:done])), decode(list(ids[start:end]))
        if now.endswith(_PARTIAL) and end < len(ids):
            texts.append("")
            continue
        texts.append(now[len(before) :])
        start, done = done, end
    return texts
