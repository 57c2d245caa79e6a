"""Logs that look like a language model's: long-tailed, mostly decided, a little stale; and faults planted in them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Log = dict[str, npt.NDArray[Any]]

VOCABULARY = 400


def log_softmax(logits: Array) -> Array:
    """Over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def states(count: int, random: np.random.Generator) -> Array:
    """Logits ``[count, V]``: Zipf-like tails under one to three favorites; about half the states are near certain."""
    logits = -1.1 * np.log(np.arange(1, VOCABULARY + 1)) + random.normal(0, 1, (count, VOCABULARY))
    favorites = random.normal(4, 3.5, (count, 1)) + random.normal(0, 1.5, (count, 3))
    logits[:, :3] += np.maximum(favorites, 0)
    return logits


def cut_by_top_p(logprobs: Array, p: float) -> Array:
    """The smallest set of tokens with probability ≥ p, renormalized; the others get −inf."""
    order = np.argsort(-logprobs, axis=-1)
    ordered = np.exp(np.take_along_axis(logprobs, order, -1))
    before = np.cumsum(ordered, -1) - ordered
    kept = np.take_along_axis(before < p, np.argsort(order, axis=-1), -1)
    cut = np.where(kept, logprobs, -np.inf)
    return cut - np.log(np.where(kept, np.exp(logprobs), 0).sum(-1, keepdims=True))


def cut_by_top_k(logprobs: Array, k: int) -> Array:
    """The k most likely tokens, renormalized; the others get −inf."""
    least = -np.partition(-logprobs, k - 1, axis=-1)[..., k - 1 : k]
    return log_softmax(np.where(logprobs >= least, logprobs, -np.inf))


def cut_by_min_p(logprobs: Array, share: float) -> Array:
    """The tokens with at least this share of the largest probability, renormalized; the others get −inf."""
    least = logprobs.max(-1, keepdims=True) + np.log(share)
    return log_softmax(np.where(logprobs >= least, logprobs, -np.inf))


def make_log(
    tokens: int = 12_000,
    seed: int = 0,
    drift: float | Array = 0.15,
    temperature: float = 1.0,
    top_p: float = 1.0,
    length: int = 50,
    top_k: int = 0,
    min_p: float = 0.0,
    trained_temperature: float = 1.0,
    replayed: bool = False,
) -> Log:
    """Tokens sampled from μ, the policy ``drift`` (standard deviation of each logit's change) before π.

    Args:
        tokens: how many.
        seed: of everything.
        drift: one for all tokens, or ``[tokens]``.
        temperature: the sampler's, as the next ones.
        top_p: 1 for none.
        length: tokens of a response.
        top_k: 0 for none.
        min_p: 0 for none.
        trained_temperature: π's.
        replayed: π is renormalized over the tokens that the sampler kept; else it is never cut.
    """
    random = np.random.default_rng(seed)
    columns: dict[str, list[Array]] = {"logprob": [], "behavior_logprob": [], "token": []}
    drifts = np.broadcast_to(drift, (tokens,))
    for first in range(0, tokens, 4000):
        logits = states(min(4000, tokens - first), random)
        mu = log_softmax(logits / temperature)
        if top_k:
            mu = cut_by_top_k(mu, top_k)
        if min_p:
            mu = cut_by_min_p(mu, min_p)
        if top_p < 1:
            mu = cut_by_top_p(mu, top_p)
        moved = drifts[first : first + len(logits), None] * random.normal(0, 1, logits.shape)
        pi = log_softmax((logits + moved) / trained_temperature)
        if replayed:
            pi = log_softmax(np.where(np.isfinite(mu), pi, -np.inf))
        chosen = (mu + random.gumbel(size=mu.shape)).argmax(-1)
        row = np.arange(len(chosen))
        columns["logprob"].append(pi[row, chosen])
        columns["behavior_logprob"].append(mu[row, chosen])
        columns["token"].append(chosen.astype(np.float64))
    sequences = tokens // length + 1
    advantages = random.normal(0, 1, sequences)
    index = np.arange(tokens) // length
    found = {name: np.concatenate(parts) for name, parts in columns.items()}
    return {
        "logprob": found["logprob"].astype(np.float32),
        "behavior_logprob": found["behavior_logprob"].astype(np.float32),
        "advantage": advantages[index].astype(np.float32),
        "sequence_id": index,
        "step": index // 40,
        "token": found["token"].astype(np.int64),
    }


def make_run(
    steps: int = 6,
    updates: int = 4,
    seed: int = 0,
    noise: float = 1e-4,
    drift: float = 0.1,
    older: Collection[int] = (),
    **options: Any,
) -> Log:
    """A run's log with the column ``update``: 2,000 tokens a step, whose responses are spread over the updates.

    Args:
        steps: how many.
        updates: of a step.
        seed: of everything.
        noise: the engine's, in the logits.
        drift: of the last update beyond the first.
        older: the steps whose μ is of weights as far away as a whole step's drift.
        options: of :func:`make_log`.
    """
    step = np.repeat(np.arange(1, steps + 1), 2000)
    update = np.tile(np.arange(2000) // 50 * updates // 40, steps)
    moved = drift * (update / max(updates - 1, 1) + np.isin(step, list(older)))
    log = make_log(2000 * steps, seed, np.sqrt(noise**2 + moved**2), **options)
    return {**log, "step": step, "update": update}


def round_to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """To the nearest, ties to even."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def shift_by_one(log: Log, lag: int = 1) -> Log:
    """μ of each token is that of its neighbor, within sequences; the ends keep their own."""
    moved = np.roll(log["behavior_logprob"], lag)
    ends = log["sequence_id"] != np.roll(log["sequence_id"], lag)
    return {**log, "behavior_logprob": np.where(ends, log["behavior_logprob"], moved).astype(np.float32)}


def write_jsonl(file: Path, log: Log) -> Path:
    """One line a token."""
    names = list(log)
    rows = zip(*(log[name].tolist() for name in names), strict=True)
    file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return file


def write_parquet(file: Path, log: dict[str, Any], **options: Any) -> Path:
    """One row a token, or whatever ``log`` holds."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(log), file, **options)
    return file


def as_responses(log: Log) -> dict[str, list[Any]]:
    """The same log with one row a response."""
    starts = np.flatnonzero(np.diff(log["sequence_id"], prepend=-1))
    ends = [*starts[1:], len(log["sequence_id"])]

    def lists(name: str) -> list[Any]:
        return [log[name][a:b].tolist() for a, b in zip(starts, ends, strict=True)]

    return {
        "logprobs": lists("logprob"),
        "behavior_logprobs": lists("behavior_logprob"),
        "advantage": [float(log["advantage"][a]) for a in starts],
        "step": [int(log["step"][a]) for a in starts],
        "tokens": lists("token"),
    }
