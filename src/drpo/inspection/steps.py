"""Which steps of a log are read: a range, or the last ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drpo.errors import ConfigError, DataError
from drpo.inspection.readers.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps from ``first`` to ``last``, both included; None: no bound."""

    first: int | None = None
    last: int | None = None

    def __str__(self) -> str:
        first, last = ("" if step is None else str(step) for step in (self.first, self.last))
        return f"{first}:{last}"

    def select(self, tokens: Tokens) -> Tokens:
        """The tokens of these steps.

        Raises:
            DataError: the log has no steps.
        """
        if self.first is None and self.last is None:
            return tokens
        if tokens.steps is None:
            raise DataError(f"{tokens.source} has no column step, so that --steps cannot choose. Leave it out.")
        keep = np.ones(len(tokens), dtype=np.bool_)
        if self.first is not None:
            keep &= tokens.steps >= self.first
        if self.last is not None:
            keep &= tokens.steps <= self.last
        return tokens.select(keep)


class LastSteps:
    """Finds the last ``count`` steps of a log, in whatever order they come."""

    def __init__(self, count: int):
        self.count = count
        self._last: list[int] = []

    def note(self, tokens: Tokens) -> None:
        """Note the steps of one chunk.

        Raises:
            DataError: the log has no steps.
        """
        if tokens.steps is None:
            raise DataError(
                f"{tokens.source} has no column step, so that there are no last steps. Log the step of each token (the "
                "column step, or --map step=NAME), or leave --last out."
            )
        self._last = sorted({*self._last, *np.unique(tokens.steps).tolist()})[-self.count :]

    @property
    def steps(self) -> Steps:
        """From the first of them on; all steps where none was noted."""
        return Steps(self._last[0] if self._last else None)


def parse_steps(text: str | None) -> Steps:
    """``FIRST:LAST`` as on the command line; None: all steps.

    Raises:
        ConfigError: it is neither, or no step lies between them.
    """
    if text is None:
        return Steps()
    first, colon, last = text.partition(":")
    try:
        found = Steps(int(first) if first else None, int(last) if last else None)
    except ValueError:
        found = None
    if found is None or not colon or (found.first is None and found.last is None):
        raise ConfigError(f"--steps {text!r} is not FIRST:LAST with whole numbers; examples: 10:20, 10:, :20, 7:7")
    if found.first is not None and found.last is not None and found.first > found.last:
        raise ConfigError(f"--steps {text!r}: the first step is after the last; swap them")
    return found
