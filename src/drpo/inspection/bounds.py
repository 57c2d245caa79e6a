"""A bound δ to begin with."""

from __future__ import annotations

import math

from drpo.inspection.distributions import NEAR, Distributions
from drpo.inspection.result import SuggestedDelta

#: Share of the diverging tokens that are inside the trust region at the suggested δ.
INSIDE = 0.99
#: Bounds below or above these are not suggested.
LOWEST, HIGHEST = 0.02, 0.5
#: Fewest diverging tokens to judge by.
FEWEST = 200


def suggest_delta(found: Distributions, tokens: int) -> SuggestedDelta:
    """δ at the 99 % quantile of |π − μ| among diverging tokens, those with Â(r − 1) > 0.

    A trust region lowers the gradient weight of these tokens only. At this δ the weight 1 − |π − μ|/δ is negative for
    the largest 1 % of shifts and close to 1 for most tokens. The quantile says which δ acts on this log; which δ trains
    best needs an experiment.
    """
    if found.near >= 0.999 * tokens:
        return SuggestedDelta(None, f"log π and log μ agree within {NEAR:g} nats on nearly all tokens: no δ acts.")
    if found.diverging < FEWEST:
        return SuggestedDelta(
            None, f"Only {found.diverging} tokens are diverging (Â(r − 1) > 0); at least {FEWEST} are needed."
        )
    median, tail = found.diverging_shift.quantiles((0.5, INSIDE))
    assert median is not None and tail is not None
    shift, middle = 10**tail, 10**median
    value = _rounded(min(max(shift, LOWEST), HIGHEST))
    reason = (
        f"Of the {found.diverging:,} diverging tokens (Â(r − 1) > 0), 99 % have |π − μ| ≤ {shift:.2g} and half have "
        f"|π − μ| ≤ {middle:.2g}."
    )
    if shift < LOWEST:
        reason += f" {LOWEST} is the smallest δ that is suggested; it acts on hardly any token here."
    elif shift > HIGHEST:
        reason += f" {HIGHEST} is the largest δ that is suggested; make fewer updates per rollout batch as well."
    else:
        reason += (
            " At this δ DRPO's gradient weight is negative for the largest 1 % of shifts and "
            f"{1 - middle / value:.2f} at the median."
        )
    return SuggestedDelta(value, reason)


def _rounded(value: float) -> float:
    """To two significant digits."""
    return round(value, 1 - math.floor(math.log10(value)))
