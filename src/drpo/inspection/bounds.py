"""A bound δ to begin with."""

from __future__ import annotations

import math

from drpo.inspection.distributions import NEAR, Distributions
from drpo.inspection.result import SuggestedDelta

#: Share of the diverging tokens that the suggested bound leaves within the region.
INSIDE = 0.99
#: Bounds below or above these are not suggested.
LOWEST, HIGHEST = 0.02, 0.5
#: Fewest diverging tokens to judge by.
FEWEST = 200


def suggest_delta(found: Distributions, tokens: int) -> SuggestedDelta:
    """δ at the 99 % quantile of |π − μ| among diverging tokens, those with Â(r − 1) > 0.

    These are the only tokens that a bound can hold back. At their 99 % quantile it holds the tail, where a step has
    gone furthest, and leaves the weight of the bulk, 1 − |π − μ|/δ, close to 1. The suggestion is about size only:
    whether it trains best is for an experiment to say.
    """
    if found.near >= 0.999 * tokens:
        return SuggestedDelta(None, f"π and μ agree within {NEAR:g} nats on nearly every token, so no bound acts.")
    if found.diverging < FEWEST:
        return SuggestedDelta(
            None, f"only {found.diverging} tokens move away from μ (Â(r − 1) > 0); at least {FEWEST} are needed."
        )
    median, tail = found.diverging_shift.quantiles((0.5, INSIDE))
    assert median is not None and tail is not None
    shift, middle = 10**tail, 10**median
    value = _rounded(min(max(shift, LOWEST), HIGHEST))
    reason = (
        f"99 % of the {found.diverging:,} tokens that move away from μ (Â(r − 1) > 0) stay within |π − μ| = "
        f"{shift:.2g}, half within {middle:.2g}."
    )
    if shift < LOWEST:
        reason += f" That is so little that {LOWEST} is suggested instead; it will hardly act."
    elif shift > HIGHEST:
        reason += f" That is too far for a trust region: {HIGHEST} is suggested, with fewer updates a rollout batch."
    else:
        reason += (
            f" A bound there turns back the furthest 1 % and gives the median one DRPO's weight "
            f"{1 - middle / value:.2f}."
        )
    return SuggestedDelta(value, reason)


def _rounded(value: float) -> float:
    """To two significant digits."""
    return round(value, 1 - math.floor(math.log10(value)))
