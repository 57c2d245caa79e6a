"""The tokens whose gradient an objective changes most, with the text around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Tokens
from drpo.inspection.result import AffectedToken
from drpo.inspection.verdicts import gradient_change

#: Tokens kept, and neighbors shown on either side.
MOST, NEIGHBORS = 20, 12


class Affected:
    """The tokens with the largest |Â r| |w − 1|."""

    def __init__(self) -> None:
        self.found: list[AffectedToken] = []

    def add(self, part: Measured, weights: np.ndarray) -> None:
        """Look through one chunk with its ``weights`` ``[N]``, NaN where Â = 0."""
        tokens = part.tokens
        pull = np.nan_to_num(gradient_change(part.mass, weights), nan=0.0)
        least = self.found[-1].change if len(self.found) == MOST else 0.0
        best = np.argpartition(-pull, MOST)[:MOST] if len(pull) > MOST else np.arange(len(pull))
        for at in best[pull[best] > least].tolist():
            self.found.append(_described(tokens, at, float(weights[at]), float(pull[at])))
        self.found.sort(key=lambda token: -token.change)
        del self.found[MOST:]


def _described(tokens: Tokens, at: int, weight: float, change: float) -> AffectedToken:
    same = tokens.sequences == tokens.sequences[at]
    first, end = int(same.argmax()), len(same) - int(same[::-1].argmax())
    return AffectedToken(
        source=tokens.source,
        row=int(tokens.rows[at]),
        step=None if tokens.steps is None else int(tokens.steps[at]),
        token=item(tokens.ids, at),
        text=item(tokens.texts, at),
        before=_joined(tokens.texts, max(first, at - NEIGHBORS), at),
        after=_joined(tokens.texts, at + 1, min(end, at + 1 + NEIGHBORS)),
        mu=float(np.exp(tokens.behavior_logprobs[at])),
        pi=float(np.exp(tokens.logprobs[at])),
        advantage=float(tokens.advantages[at]),
        weight=weight,
        change=change,
    )


def item(column: Sequence[Any] | None, at: int) -> str | None:
    """One value of a column as text; None where there is none."""
    value = None if column is None else column[at]
    # A table library writes NaN where a text is missing.
    if value is None or value != value:
        return None
    # Python does not write out whole numbers of more than 4300 digits, except in this form.
    return hex(value) if isinstance(value, int) and abs(value) >= 2**128 else str(value)


def _joined(column: Sequence[Any] | None, first: int, end: int) -> str:
    return "" if column is None else "".join(item(column, at) or "" for at in range(first, end))
