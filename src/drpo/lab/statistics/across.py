"""One effect in several settings: random effects over settings, as if they were drawn from a larger number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from drpo.errors import DataError
from drpo.lab.statistics._scipy import optimize, stats
from drpo.lab.statistics.estimates import Estimate, t_quantile


@dataclass(frozen=True, slots=True)
class RandomEffects(Estimate):
    """The mean effect over settings like these, with the p-value of "it is 0" and ``between``, the standard deviation
    of the true effects from setting to setting."""

    p: float
    between: float


def random_effects(effects: Sequence[float], errors: Sequence[float]) -> RandomEffects:
    """Settings' effects under random effects, with Hartung's and Knapp's interval (Student's distribution with k − 1
    degrees of freedom for k settings) and Paule's and Mandel's variance between settings.

    Source: Hartung and Knapp, Statistics in Medicine 20 (2001); Paule and Mandel, Journal of Research of the National
    Bureau of Standards 87 (1982).

    Args:
        effects: one a setting.
        errors: their standard errors.

    Raises:
        DataError: fewer than two settings, or an error that is not positive.
    """
    found, variances = np.asarray(effects, dtype=np.float64), np.asarray(errors, dtype=np.float64) ** 2
    if len(found) < 2 or len(found) != len(variances) or not (variances > 0).all():
        raise DataError(f"random effects need two settings or more with positive errors, got {list(errors)}")
    freedom = len(found) - 1

    def excess(between: float) -> float:
        weights = 1 / (variances + between)
        return float((weights * (found - np.average(found, weights=weights)) ** 2).sum()) - freedom

    top = float(found.var(ddof=1) + variances.max()) * len(found)
    between = cast(float, optimize.brentq(excess, 0.0, top)) if excess(0.0) > 0 else 0.0
    weights = 1 / (variances + between)
    value = float(np.average(found, weights=weights))
    error = math.sqrt(float((weights * (found - value) ** 2).sum()) / freedom / float(weights.sum()))
    if error == 0:
        return RandomEffects(value, value, value, math.nan, 0.0)
    reach = t_quantile(freedom) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return RandomEffects(value, value - reach, value + reach, p, math.sqrt(between))
