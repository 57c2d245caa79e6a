"""Tokens with a probability of exactly 1 on one side, and clearly less on the other.

Three things make them: a cut of the distribution that left one token (:mod:`truncation`), a value of 0 that was filled
in (:mod:`placeholders`), and a policy that was nearly certain on one side and is less so on the other. The last one
makes as many of them among the tokens whose probability is just below 1.
"""

from __future__ import annotations

import numpy as np

from drpo.inspection.histograms import Histogram
from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Flags, Floats
from drpo.mismatch.axis import Axis

#: A log-probability above this is a probability of 1, and one below this is clearly less (nats).
ONE, LESS = -1e-6, -1e-3
#: Fewest such tokens, in number and as a share of all.
FEWEST, SHARE = 20, 1e-3
#: Log-probability of the tokens just below 1 (nats), and how much more often than theirs the other side must be less.
NEARLY_ONE, MORE_OFTEN = -1e-4, 3.0
#: Where one token was left, hardly any other has a π above the median of those: per such token, at most this many.
NOT_ALONE = 0.5


def false_or_alone(values: Floats, others: Floats) -> Flags:
    """``[N]``: where ``values`` are of a probability of 1, and ``others`` of one that is clearly less."""
    return (values >= ONE) & (others < LESS)


class Ones:
    """Counts of one side's ones. ``alone`` and ``others`` are of the other side's probability in tokens with and
    without a one."""

    def __init__(self) -> None:
        self.tokens = self.certain = self.nearly = self.nearly_less = 0
        self.alone = Histogram(Axis(0.0, 1.0, 1000))
        self.others = Histogram(Axis(0.0, 1.0, 1000))

    def add(self, values: Floats, others: Floats) -> None:
        """Count log-probabilities ``[N]`` of this side and of the other one."""
        one = values >= ONE
        nearly = ~one & (values > NEARLY_ONE)
        self.tokens += len(values)
        self.certain += int(one.sum())
        self.nearly += int(nearly.sum())
        self.nearly_less += int((others[nearly] < LESS).sum())
        self.alone.add(np.exp(others[false_or_alone(values, others)]))
        self.others.add(np.exp(others[~one]))

    @property
    def count(self) -> int:
        """Tokens with a one here and less on the other side."""
        return int(self.alone.counts.sum())

    @property
    def least(self) -> float:
        """The smallest of their probabilities on the other side (1 % quantile); 1 if there are none."""
        (value,) = self.alone.quantiles((0.01,))
        return 1.0 if value is None else value

    @property
    def are_many(self) -> bool:
        """Whether they are more than a policy explains that is less certain on the other side."""
        enough = self.count >= max(FEWEST, SHARE * self.tokens)
        return enough and self.count > MORE_OFTEN * self.certain * self.nearly_less / max(self.nearly, 1)

    @property
    def are_alone(self) -> bool:
        """Whether the other side gives larger probabilities to ones only, as where a cut left one token."""
        (middle,) = self.alone.quantiles((0.5,))
        if middle is None:
            return False
        above = self.alone.axis.middles() > middle
        return self.others.counts[0, above].sum() <= NOT_ALONE * self.alone.counts[0, above].sum()


class BothOnes:
    """:class:`Ones` of π and of μ."""

    def __init__(self) -> None:
        self.pi, self.mu = Ones(), Ones()

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        pi, mu = part.tokens.logprobs, part.tokens.behavior_logprobs
        self.pi.add(pi, mu)
        self.mu.add(mu, pi)
