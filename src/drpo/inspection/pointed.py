"""Which of the sampled tokens a finding is about, for a reader to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from drpo.inspection.detectors.ones import false_or_alone
from drpo.inspection.evidence import Evidence
from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Flags, Tokens
from drpo.inspection.result import Finding, SampledResponse

#: Finding → its tokens ``[N]`` among those of a chunk. A finding that is about a whole log, its steps or its responses
#: is not here.
POINTED: Mapping[str, Callable[[Evidence, Measured], Flags]] = {
    "unsampled": lambda evidence, part: evidence.counted.unsampled.pointed(part),
    "mask_edge": lambda evidence, part: evidence.counted.edges.pointed(part),
    "placeholder": lambda evidence, part: evidence.counted.placeholders.pointed(part, evidence.counted.ones),
    "top_token": lambda evidence, part: evidence.counted.top_token.pointed(part),
    "truncated": lambda _, part: false_or_alone(part.tokens.behavior_logprobs, part.tokens.logprobs),
    "retokenized": lambda evidence, part: evidence.counted.retokenized.pointed(part),
    "outliers": lambda evidence, part: evidence.counted.outliers.pointed(part),
    "update_drift": lambda evidence, part: evidence.counted.updates.pointed(part),
    "moved_far": lambda evidence, part: part.distance > (evidence.shift_tail or np.inf),
}


def pointed(found: Iterable[Finding], evidence: Evidence, sampled: Sequence[SampledResponse]) -> list[SampledResponse]:
    """The responses, each with the places of its tokens that a finding is about."""
    names = [name for name in dict.fromkeys(finding.name for finding in found) if name in POINTED]
    if not sampled or not names:
        return list(sampled)
    part = Measured.of(_tokens(sampled))
    # Where a part was cut out of a long response, its ends are no edges of the response.
    ends = part.starts + part.lengths()
    known = np.ones(len(part.tokens), dtype=np.bool_)
    for response, start, end in zip(sampled, part.starts, ends, strict=True):
        known[start] &= response.first == 0
        known[end - 1] &= response.first + len(response.logprobs) == response.length
    flags = {name: POINTED[name](evidence, part) & known for name in names}
    return [
        replace(
            response,
            pointed={name: np.flatnonzero(mine).tolist() for name in names if (mine := flags[name][start:end]).any()},
        )
        for response, start, end in zip(sampled, part.starts, ends, strict=True)
    ]


def _tokens(sampled: Sequence[SampledResponse]) -> Tokens:
    """The tokens of all responses, one sequence a response."""

    def joined(values: Iterable[Sequence[float]]) -> np.ndarray:
        return np.concatenate([np.asarray(one, dtype=np.float32) for one in values])

    lengths = [len(response.logprobs) for response in sampled]
    updates = [response.update for response in sampled if response.update is not None]
    return Tokens(
        joined(response.logprobs for response in sampled),
        joined(response.behavior_logprobs for response in sampled),
        joined(response.advantages for response in sampled),
        np.repeat(np.arange(len(sampled)), lengths),
        np.repeat([response.row for response in sampled], lengths),
        "the sample",
        1.0,
        updates=np.repeat(updates, lengths) if len(updates) == len(sampled) else None,
    )
