"""A bounded sample of whole responses, for a reader to look at token by token.

Three pools share the bound: the responses whose gradient an objective changes most, those with the largest
|log π − log μ|, and a uniform random sample, which is the same for the same log. A group (the responses to one prompt)
is kept whole where it fits.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from drpo.inspection.affected import item
from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Tokens
from drpo.inspection.result import SampledResponse
from drpo.inspection.verdicts import gradient_change

#: Tokens and responses that are kept at most, over all pools, and their share for each pool.
MOST_TOKENS, MOST_RESPONSES = 50_000, 200
POOLS = {"changed": 0.45, "extreme": 0.15, "random": 0.4}
#: Tokens of one response at most: those around the token that is changed most.
WINDOW = 4096
#: Log-ratios below this, in nats, are not extreme.
LEAST_EXTREME = 0.5


@dataclass(slots=True, eq=False)
class _Unit:
    """A group of one chunk, or a response that belongs to none: where its responses start and end, and its scores."""

    spans: list[tuple[int, int]]
    order: int
    tokens: int
    scores: dict[str, float]
    responses: list[SampledResponse] = field(default_factory=list)


class Sample:
    """Collects the sample.

    Args:
        reference: the objective whose changes rank.
        shown: the objectives whose weights are kept.
        most_tokens: the bound.
    """

    def __init__(self, reference: str, shown: Sequence[str], most_tokens: int = MOST_TOKENS):
        self.reference, self.shown = reference, shown
        self._most_tokens = most_tokens
        self._pools: dict[str, list[_Unit]] = {name: [] for name in POOLS}
        self._seen = 0

    def add(self, part: Measured, weights: Mapping[str, np.ndarray]) -> None:
        """Look through one chunk, with the ``weights`` ``[N]`` of each objective, NaN where Â = 0."""
        tokens = part.tokens
        starts = np.flatnonzero(np.diff(tokens.sequences, prepend=tokens.sequences[0] - 1))
        ends = np.append(starts[1:], len(tokens))
        change = np.nan_to_num(gradient_change(part.mass, weights[self.reference]), nan=0.0)
        units = self._units(tokens, starts, ends)
        scores = {
            "changed": _highest(np.maximum.reduceat(change, starts), units),
            "extreme": _highest(np.maximum.reduceat(np.abs(part.log_ratio), starts), units),
            "random": _draws(self._seen + np.unique(units, return_index=True)[1]),
        }
        # No pool has room for more units of one chunk than these.
        best = {int(unit) for values in scores.values() for unit in np.argsort(-values, kind="stable")[:MOST_RESPONSES]}
        candidates = []
        for unit in sorted(best):
            members = np.flatnonzero(units == unit)
            spans = list(zip(starts[members].tolist(), ends[members].tolist(), strict=True))
            size = sum(min(end - start, WINDOW) for start, end in spans)
            mine = {name: float(values[unit]) for name, values in scores.items()}
            candidates.append(_Unit(spans, self._seen + int(members[0]), size, mine))
        self._seen += len(starts)
        for name, pool in self._pools.items():
            self._pools[name] = self._best(name, [*pool, *candidates])
        for unit in (unit for pool in self._pools.values() for unit in pool if not unit.responses):
            unit.responses = [_response(tokens, weights, self.shown, _window(span, change)) for span in unit.spans]

    def responses(self) -> list[SampledResponse]:
        """What is kept so far, in the order of the log, each with the pools that keep it."""
        units = {id(unit): unit for pool in self._pools.values() for unit in pool}
        return [
            replace(response, why=[name for name, pool in self._pools.items() if unit in pool])
            for unit in sorted(units.values(), key=lambda unit: unit.order)
            for response in unit.responses
        ]

    def _units(self, tokens: Tokens, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """``[R]``: the unit of each response of the chunk, counted from 0: its group, or the response alone where it
        has none or the group is too large for a pool."""
        if tokens.groups is None:
            return np.arange(len(starts))
        keys: dict[Any, int] = {}
        units = np.empty(len(starts), dtype=np.int64)
        for place, start in enumerate(starts.tolist()):
            step = None if tokens.steps is None else int(tokens.steps[start])
            group = item(tokens.groups, start)
            units[place] = keys.setdefault(("alone", place) if group is None else (step, group), len(keys))
        share = min(POOLS.values()) / 2
        sizes = np.bincount(units, weights=np.minimum(ends - starts, WINDOW))
        large = (sizes > share * self._most_tokens) | (np.bincount(units) > share * MOST_RESPONSES)
        alone = np.flatnonzero(large[units])
        units[alone] = len(keys) + np.arange(len(alone))
        return np.unique(units, return_inverse=True)[1]

    def _best(self, name: str, units: list[_Unit]) -> list[_Unit]:
        """As many of ``units`` as the pool's share allows, those of the highest score first."""
        tokens, responses = (int(POOLS[name] * most) for most in (self._most_tokens, MOST_RESPONSES))
        least = {"changed": 0.0, "extreme": LEAST_EXTREME, "random": -1.0}[name]
        kept = []
        for unit in sorted(units, key=lambda unit: (-unit.scores[name], unit.order)):
            if unit.scores[name] <= least:
                break
            if unit.tokens <= tokens and len(unit.spans) <= responses:
                tokens, responses = tokens - unit.tokens, responses - len(unit.spans)
                kept.append(unit)
            if responses <= 0 or tokens <= 0:
                break
        return kept


def _highest(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """``[U]``: the highest of the ``values`` ``[R]`` of each unit's responses."""
    highest = np.full(units.max() + 1, -np.inf)
    np.maximum.at(highest, units, values)
    return highest


def _draws(ordinals: np.ndarray) -> np.ndarray:
    """A number between 0 and 1 for each of the log's responses, by its place: splitmix64."""
    with np.errstate(over="ignore"):
        mixed = ordinals.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _window(span: tuple[int, int], change: np.ndarray) -> tuple[int, int, int, int]:
    """The response's start and end, and those of the part that is kept."""
    start, end = span
    if end - start <= WINDOW:
        return start, end, start, end
    middle = start + int(change[start:end].argmax())
    first = min(max(start, middle - WINDOW // 2), end - WINDOW)
    return start, end, first, first + WINDOW


def _response(
    tokens: Tokens, weights: Mapping[str, np.ndarray], shown: Sequence[str], place: tuple[int, int, int, int]
) -> SampledResponse:
    start, end, first, last = place
    part = slice(first, last)
    return SampledResponse(
        source=tokens.source,
        row=int(tokens.rows[start]),
        step=None if tokens.steps is None else int(tokens.steps[start]),
        update=None if tokens.updates is None else int(tokens.updates[start]),
        group=item(tokens.groups, start),
        reward=_number(tokens.rewards, start),
        first=first - start,
        length=end - start,
        texts=None if tokens.texts is None else [item(tokens.texts, at) for at in range(first, last)],
        ids=None if tokens.ids is None else [item(tokens.ids, at) for at in range(first, last)],
        behavior_logprobs=tokens.behavior_logprobs[part].tolist(),
        logprobs=tokens.logprobs[part].tolist(),
        advantages=tokens.advantages[part].tolist(),
        weights={name: weights[name][part].tolist() for name in shown},
    )


def _number(column: Sequence[Any] | None, at: int) -> float | None:
    value = None if column is None else column[at]
    # False for what is not finite, and for a whole number beyond floating point.
    return float(value) if isinstance(value, int | float) and abs(value) <= sys.float_info.max else None
