"""Faults of real logs, planted in a sound one: each function takes a log and returns a damaged copy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from support.synthetic_log import Log, log_softmax, make_log, states

Integers = npt.NDArray[np.integer]


def starts_of(log: Log) -> Integers:
    """Where each response begins ``[S]``."""
    return np.flatnonzero(np.diff(log["sequence_id"], prepend=log["sequence_id"][0] - 1))


def lengths_of(log: Log) -> Integers:
    """The tokens of each response ``[S]``."""
    return np.diff(starts_of(log), append=len(log["sequence_id"]))


def filled(log: Log, column: str, value: float, share: float, seed: int = 0) -> Log:
    """A share of the tokens has one value."""
    where = np.random.default_rng(seed).random(len(log[column])) < share
    return {**log, column: np.where(where, value, log[column]).astype(np.float32)}


def inserted(log: Log, before: Integers, length: int, is_copy: bool, seed: int = 0) -> Log:
    """``length`` tokens of other text before each of the tokens ``before``: log μ is 0, or a copy of log π.

    π finds such text much less likely than its own.
    """
    random = np.random.default_rng(seed)
    where = np.repeat(before, length)
    # An insertion belongs to the response of the token that it stands before.
    longer = {name: np.insert(values, where, np.repeat(values[before], length)) for name, values in log.items()}
    new = np.insert(np.zeros(len(log["logprob"]), dtype=bool), where, True)
    pi = -random.exponential(2.5, len(where)).astype(np.float32)
    longer["logprob"][new] = pi
    longer["behavior_logprob"][new] = pi if is_copy else 0
    return longer


def with_prompts(log: Log, length: int = 6, is_copy: bool = False, seed: int = 0) -> Log:
    """Prompt tokens at the beginning of each response."""
    return inserted(log, starts_of(log), length, is_copy, seed)


def with_tool_output(log: Log, length: int = 12, share: float = 0.2, is_copy: bool = False, seed: int = 0) -> Log:
    """Tool output in the middle of a share of the responses."""
    random = np.random.default_rng(seed)
    starts, lengths = starts_of(log), lengths_of(log)
    chosen = (random.random(len(starts)) < share) & (lengths > 4)
    return inserted(log, (starts + lengths // 2)[chosen], length, is_copy, seed)


def with_edge(log: Log, place: str, is_zero: bool, seed: int = 0) -> Log:
    """One token too many at the beginning ("first") or at the end ("last") of each response, or of another token."""
    random = np.random.default_rng(seed)
    starts, lengths = starts_of(log), lengths_of(log)
    at = starts if place == "first" else starts + lengths - 1
    mu = log["behavior_logprob"].copy()
    pi = log["logprob"].copy()
    pi[at] = -random.exponential(2.5, len(at))
    mu[at] = 0 if is_zero else random.choice(mu, len(at))
    return {**log, "behavior_logprob": mu, "logprob": pi}


def retokenized(log: Log, share: float, length: int = 4, seed: int = 0) -> Log:
    """π holds ``length`` tokens in a row impossible, in a share of the responses."""
    random = np.random.default_rng(seed)
    starts, lengths = starts_of(log), lengths_of(log)
    chosen = (random.random(len(starts)) < share) & (lengths > length + 1)
    first = starts[chosen] + random.integers(0, lengths[chosen] - length)
    at = (first[:, None] + np.arange(length)).ravel()
    pi = log["logprob"].copy()
    pi[at] = np.minimum(log["behavior_logprob"][at], -1) - random.uniform(6, 18, len(at))
    return {**log, "logprob": pi.astype(np.float32)}


def without_signal(log: Log, share: float, seed: int = 0) -> Log:
    """A share of the responses has Â = 0."""
    starts, lengths = starts_of(log), lengths_of(log)
    equal = np.random.default_rng(seed).random(len(starts)) < share
    return {**log, "advantage": np.where(np.repeat(equal, lengths), 0, log["advantage"]).astype(np.float32)}


def repeating(log: Log, piece: int, share: float, seed: int = 0) -> Log:
    """In the last third of the steps a share of the responses repeats its first ``piece`` tokens until it ends."""
    starts, lengths = starts_of(log), lengths_of(log)
    late = log["step"][starts] > np.quantile(log["step"], 2 / 3)
    loops = late & (np.random.default_rng(seed).random(len(starts)) < share)
    place = np.arange(len(log["step"])) - np.repeat(starts, lengths)
    source = np.repeat(starts, lengths) + np.where(np.repeat(loops, lengths), place % piece, place)
    return {**log, "token": log["token"][source]}


def cut_short(log: Log, lengths: Integers) -> Log:
    """Each response keeps its first ``lengths`` ``[S]`` tokens."""
    place = np.arange(len(log["step"])) - np.repeat(starts_of(log), lengths_of(log))
    keep = place < np.repeat(lengths, lengths_of(log))
    return {name: values[keep] for name, values in log.items()}


def of_top_token(tokens: int, seed: int, drift: float) -> Log:
    """μ is the most likely token's, whichever was sampled."""
    log = make_log(tokens, seed, drift)
    random = np.random.default_rng(seed)
    largest = []
    # The same states as in make_log, whose first draws of a part they are.
    for first in range(0, tokens, 4000):
        logits = states(min(4000, tokens - first), random)
        largest.append(log_softmax(logits).max(-1))
        random.normal(0, 1, logits.shape)
        random.gumbel(size=logits.shape)
    return {**log, "behavior_logprob": np.concatenate(largest).astype(np.float32)}
