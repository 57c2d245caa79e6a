"""The learning signal of a host whose loss sees rows of an update, not the whole rollout batch.

Shapes: ``N`` kept tokens.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from drpo.batch import TokenBatch
from drpo.errors import DrpoWarning
from drpo.learning_signal import LearningSignal, RolloutFacts


@dataclass
class RowSignal:
    """Puts the rows of calls together until they are as many as an update has over all ranks."""

    signal: LearningSignal = field(default_factory=LearningSignal)
    rows: int = 0
    varies: bool = False

    def add(self, varies: bool, rows: int, update_rows: int) -> list[str]:
        """The warnings due after ``rows`` more; on one of several ranks they come later than after two updates."""
        self.rows, self.varies = self.rows + rows, self.varies or varies
        if self.rows < update_rows:
            return []
        facts = RolloutFacts(varies=self.varies)
        self.rows, self.varies = 0, False
        return self.signal.add(facts)


def warn_of_no_signal(signal: RowSignal, batch: TokenBatch, rows: int, update_rows: int) -> None:
    """Warn where no advantage of the last updates was anything but 0.

    Args:
        signal: what this worker has seen so far.
        batch: ``N`` tokens of this call.
        rows: sequences of this call.
        update_rows: sequences of the whole update.
    """
    varies = bool((batch.advantages != 0).any())
    for text in signal.add(varies, rows, update_rows):
        warnings.warn(text, DrpoWarning, stacklevel=3)
