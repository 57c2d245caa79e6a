"""What a handful of seeds allows to say: estimates with intervals, tests, the minimum detectable difference."""

from drpo.lab.statistics.across import RandomEffects, random_effects
from drpo.lab.statistics.differences import paired_difference, sign_flip, smallest_sign_flip
from drpo.lab.statistics.estimates import (
    ALPHA,
    LEVEL,
    Difference,
    Estimate,
    MeanDifference,
    Strata,
    mean,
    rate,
)
from drpo.lab.statistics.improvement import probability_of_improvement
from drpo.lab.statistics.looks import nominal_level, nominal_levels, sequential_p
from drpo.lab.statistics.multiplicity import holm, holm_levels
from drpo.lab.statistics.power import Spread, detectable, difference_spread, two_way_spread
from drpo.lab.statistics.robustness import basin_width, normal_range, reference_gain, sensitivity
from drpo.lab.statistics.variances import detectable_ratio, variance_ratio

__all__ = [
    "ALPHA",
    "LEVEL",
    "Difference",
    "Estimate",
    "MeanDifference",
    "RandomEffects",
    "Spread",
    "Strata",
    "basin_width",
    "detectable",
    "detectable_ratio",
    "difference_spread",
    "holm",
    "holm_levels",
    "mean",
    "nominal_level",
    "nominal_levels",
    "normal_range",
    "paired_difference",
    "probability_of_improvement",
    "random_effects",
    "rate",
    "reference_gain",
    "sensitivity",
    "sequential_p",
    "sign_flip",
    "smallest_sign_flip",
    "two_way_spread",
    "variance_ratio",
]
