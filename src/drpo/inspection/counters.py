"""Everything that is counted of the usable tokens of a log for the figures and findings."""

from __future__ import annotations

from drpo.inspection.detectors.alignment import Alignment
from drpo.inspection.detectors.edges import Edges
from drpo.inspection.detectors.first_update import FirstUpdate
from drpo.inspection.detectors.no_signal import NoSignal
from drpo.inspection.detectors.number_format import Grids, Outliers
from drpo.inspection.detectors.ones import BothOnes
from drpo.inspection.detectors.placeholders import Placeholders, TopToken
from drpo.inspection.detectors.progress import Progress
from drpo.inspection.detectors.retokenized import Retokenized
from drpo.inspection.detectors.temperature import Temperature
from drpo.inspection.detectors.truncation import Truncation
from drpo.inspection.detectors.unsampled import Unsampled
from drpo.inspection.detectors.updates import Updates
from drpo.inspection.distributions import Distributions
from drpo.inspection.measured import Measured


class Counters:
    """One accumulator a kind of evidence. ``delta`` is the bound on |π − μ| that shares are counted against."""

    def __init__(self, delta: float) -> None:
        self.distributions = Distributions(delta)
        self.alignment = Alignment()
        self.temperature = Temperature()
        self.ones = BothOnes()
        self.truncation = Truncation()
        self.placeholders = Placeholders()
        self.top_token = TopToken()
        self.grids = Grids()
        self.outliers = Outliers()
        self.unsampled = Unsampled()
        self.edges = Edges()
        self.retokenized = Retokenized()
        self.updates = Updates(delta)
        self.first_update = FirstUpdate()
        self.no_signal = NoSignal()
        self.progress = Progress()
        self._all = tuple(vars(self).values())

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        for counter in self._all:
            counter.add(part)
