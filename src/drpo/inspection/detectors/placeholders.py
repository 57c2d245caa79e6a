"""Signs that a log-probability is not the sampled token's: placeholders, and values of another token.

Log-probabilities of sampled tokens have many digits: no value below −10, and no whole number, repeats often. An exact 0
means that the token was certain. Where top-p or min-p left it alone, π gives it at least the mass that was kept, never
a probability near 0, and gives no more to tokens that were not alone.

If μ is of the most likely token, it is right where that token was sampled and too large elsewhere: there π + μ ≤ 1, π
is far below μ and never far above, and only μ lacks rare tokens.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from drpo.inspection.detectors.ones import BothOnes, Ones, false_or_alone
from drpo.inspection.measured import Measured
from drpo.inspection.readers.tokens import Flags, Floats

#: Fewest tokens with one value; largest plausible repeated value; share of the values below it that is suspicious.
FEWEST, LOW, LOW_SHARE = 20, -10.0, 0.3
#: Share of all tokens with one whole number that is suspicious; fewest tokens with one constant.
WHOLE_SHARE, FEWEST_CONSTANT = 0.01, 100
#: A token that is a nucleus by itself has at least this probability, at a low temperature of the sampler too.
LEAST_NUCLEUS = 0.05
#: Distinct values that are counted at most.
MOST_VALUES = 100_000


@dataclass(slots=True)
class _Side:
    """Counts of one side's values: repeated ones, and the range of all."""

    tokens: int = 0
    low: Counter[float] = field(default_factory=Counter)
    whole: Counter[float] = field(default_factory=Counter)
    least: float = np.inf
    most: float = -np.inf

    def add(self, values: Floats) -> None:
        self.tokens += len(values)
        self.whole.update(values[(values <= -1) & (values == np.floor(values))].tolist())
        if len(self.low) < MOST_VALUES:
            self.low.update(values[values < LOW].tolist())
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))

    def constant(self) -> bool:
        """Whether all values are the same."""
        return self.least == self.most and self.tokens >= FEWEST_CONSTANT

    def repeated(self) -> list[tuple[float, int]]:
        """The values that repeat as no log-probability does, and on how many tokens."""
        found: dict[float, int] = {}
        for value, count in self.whole.most_common(3):
            if count >= max(FEWEST, WHOLE_SHARE * self.tokens):
                found[value] = count
        for value, count in self.low.most_common(1):
            if count >= max(FEWEST, LOW_SHARE * self.low.total()):
                found[value] = count
        return list(found.items())


def false_ones(ones: Ones, is_sampler: bool) -> bool:
    """Whether one side's ones are values of 0 that were filled in.

    The sampler may have cut its distribution; then the other side gives each of them the mass that was kept.
    """
    if not ones.are_many:
        return False
    return ones.least < LEAST_NUCLEUS or not (is_sampler and ones.are_alone)


class Placeholders:
    """Values on either side that were filled in."""

    def __init__(self) -> None:
        self.sides = {"π": _Side(), "μ": _Side()}

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        self.sides["π"].add(part.tokens.logprobs)
        self.sides["μ"].add(part.tokens.behavior_logprobs)

    def pointed(self, part: Measured, ones: BothOnes) -> Flags:
        """``[N]``: the tokens with a value that was filled in."""
        pi, mu = part.tokens.logprobs, part.tokens.behavior_logprobs
        found = np.zeros(len(pi), dtype=np.bool_)
        for name, own, values, others in (("π", ones.pi, pi, mu), ("μ", ones.mu, mu, pi)):
            side = self.sides[name]
            if false_ones(own, is_sampler=name == "μ"):
                found |= false_or_alone(values, others)
            found |= np.isin(values, [value for value, _ in side.repeated()])
        return found

    def evidence(self, ones: BothOnes) -> list[str]:
        """One clause a suspicious value; none in a sound log."""
        clauses = []
        sides = (("π", ones.pi, "μ"), ("μ", ones.mu, "π"))
        for name, own, other in sides:
            side = self.sides[name]
            zeros = false_ones(own, is_sampler=name == "μ")
            if zeros:
                clauses.append(
                    f"log {name} is exactly 0 on {own.count:,} tokens ({own.count / side.tokens:.1%}) to "
                    f"which {other} gives a probability as low as {own.least:.2g}"
                )
            if side.constant() and not self.sides[other].constant() and not zeros:
                clauses.append(f"log {name} is {side.least:g} on all tokens")
            else:
                clauses += [
                    f"log {name} is exactly {value:g} on {count:,} tokens ({count / side.tokens:.1%})"
                    for value, count in side.repeated()
                ]
        return clauses


#: |log r| (nats) beyond which two log-probabilities are of two tokens; fewest such tokens, in number and as a share.
FAR, FEWEST_FAR, FAR_SHARE = 1.0, 50, 0.005
#: A probability below this is rare for the most likely token of a state.
RARE = 0.05


class TopToken:
    """Counts that tell the most likely token's μ from the sampled one's."""

    @staticmethod
    def pointed(part: Measured) -> Flags:
        """``[N]``: the tokens that π holds far less likely than μ, which is of another token there."""
        return part.log_ratio < -FAR

    def __init__(self) -> None:
        self.tokens = self.below = self.above = self.exclusive = self.large = self.rare_mu = self.rare_pi = 0

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        pi, mu = np.exp(part.tokens.logprobs), np.exp(part.tokens.behavior_logprobs)
        below = self.pointed(part)
        self.tokens += len(pi)
        self.below += int(below.sum())
        self.above += int((part.log_ratio > FAR).sum())
        self.exclusive += int((pi + mu <= 1.02)[below].sum())
        self.large += int((mu >= RARE)[below].sum())
        self.rare_pi += int((pi < RARE).sum())
        self.rare_mu += int((mu < RARE).sum())

    def found(self) -> bool:
        """Whether μ is the most likely token's."""
        return (
            self.below >= max(FEWEST_FAR, FAR_SHARE * self.tokens)
            and self.above <= 0.05 * self.below
            and self.exclusive >= 0.98 * self.below
            and self.large >= 0.9 * self.below
            and self.rare_pi >= FEWEST_FAR
            and self.rare_mu <= 0.1 * self.rare_pi
        )
