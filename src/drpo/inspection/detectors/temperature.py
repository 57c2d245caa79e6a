"""The ratio of the temperatures of π and μ in a log (:mod:`drpo.mismatch.temperature`)."""

from __future__ import annotations

from drpo.inspection.measured import Measured
from drpo.mismatch import temperature


class Temperature(temperature.Temperature):
    """Where the log has a column ``update``, only tokens of update 0 count: their π has the weights that sampled."""

    def __init__(self) -> None:
        super().__init__()
        self.sequences = 0

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        tokens = part.tokens
        if tokens.updates is not None:
            tokens = tokens.select(tokens.updates == 0)
        self.count(tokens.logprobs, tokens.behavior_logprobs, tokens.sequences + self.sequences)
        self.sequences += int(part.tokens.sequences[-1]) + 1 if len(part.tokens) else 0
