"""Objectives side by side: gradient weights at a few tokens, their limits, and what each needs. All of it computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from drpo.objectives.base import Objective
from drpo.objectives.slices import token_weights

#: μ, r: a common and a rare token, a little and far off.
POINTS = ((0.5, 0.5), (0.5, 1.5), (0.01, 0.5), (0.01, 1.5), (0.01, 20.0))
SIGNS = {"Â > 0": 1.0, "Â < 0": -1.0}
#: Limit → (π, μ) as a small number goes to 0.
LIMITS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "r → ∞ (π = 0.5)": lambda small: (np.full_like(small, 0.5), small),
    "r → 0 (μ = 0.5)": lambda small: (small, np.full_like(small, 0.5)),
    "μ → 0 (r = 2)": lambda small: (2 * small, small),
}
SMALL = np.array([1e-6, 1e-9, 1e-12])


@dataclass(frozen=True, slots=True)
class Profile:
    """One objective: column → gradient weight, None where a token alone has none; and what its tokens hang on.

    ``head_products`` counts the products with the LM head that :func:`drpo.fused_loss` makes, forward and backward
    together; None where it cannot, as the objective reads the most likely tokens of whole logits.
    """

    weights: dict[str, float | None]
    limits: dict[str, float | None]
    needs: tuple[str, ...]
    decides: str
    homogeneous: bool
    head_products: int | None


def compare(objectives: Mapping[str, Objective]) -> dict[str, Profile]:
    """The profile of each of ``objectives``, by their labels."""
    return {label: profile(objective) for label, objective in objectives.items()}


def profile(objective: Objective) -> Profile:
    """Of one objective. A token stands alone in its sequence, with π_old = μ."""
    decides = "token" if objective.token_local else "sequence" if objective.sequence_local else "update"
    alone = objective.sequence_local

    def at(pi: np.ndarray, mu: np.ndarray, advantage: float) -> list[float]:
        return token_weights(objective, pi, mu, advantage).tolist()

    weights: dict[str, float | None] = {}
    limits: dict[str, float | None] = {}
    for sign, advantage in SIGNS.items():
        for mu, r in POINTS:
            found = at(np.array([mu * r]), np.array([mu]), advantage)[0] if alone else None
            weights[f"μ = {mu:g}, r = {r:g}, {sign}"] = found
        for name, path in LIMITS.items():
            limits[f"{name}, {sign}"] = limit(at(*path(SMALL), advantage)) if alone else None
    products = None if objective.topk else 3 if objective.token_local else 4
    return Profile(weights, limits, objective.needs, decides, objective.homogeneous, products)


def limit(values: list[float]) -> float:
    """Where three values at 1e-6, 1e-9 and 1e-12 go: the last one where the steps shrink, else an infinity."""
    first, second = values[1] - values[0], values[2] - values[1]
    if abs(second) <= max(0.5 * abs(first), 1e-9 * max(1.0, abs(values[2]))):
        return round(values[2], 6) + 0.0
    return math.copysign(math.inf, second)
