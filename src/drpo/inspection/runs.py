"""Runs: tokens of one kind that stand one after the other within a sequence."""

from __future__ import annotations

import numpy as np

from drpo.inspection.readers.tokens import Flags, Integers


def runs(chosen: Flags, sequences: Integers) -> tuple[Integers, Integers]:
    """Where each maximal run of ``chosen`` ``[N]`` begins ``[R]``, and its length ``[R]``.

    A run does not go beyond its sequence, whose numbers ``[N]`` are those of :class:`Tokens`.
    """
    at = np.flatnonzero(chosen)
    if not len(at):
        return at, at
    begins = np.ones(len(at), dtype=bool)
    begins[1:] = (np.diff(at) > 1) | (np.diff(sequences[at]) > 0)
    first = np.flatnonzero(begins)
    return at[first], np.diff(first, append=len(at))


def in_runs(chosen: Flags, sequences: Integers, fewest: int) -> Flags:
    """``[N]``: those of ``chosen`` in a run of at least ``fewest``."""
    _, lengths = runs(chosen, sequences)
    found = np.zeros(len(chosen), dtype=np.bool_)
    found[np.flatnonzero(chosen)] = np.repeat(lengths >= fewest, lengths)
    return found
