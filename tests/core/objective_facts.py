"""What the contract test knows of each objective: numbers worked out by hand, and its gradient weight.

Whoever registers an objective adds an entry to FACTS; the contract test fails until there is one. Nothing
here uses the code under test: the weights are those of the papers, in π and μ, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from batches import Tokens

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One set of parameters with tokens worked out by hand: rows of (π, μ, Â, loss, weight)."""

    parameters: dict[str, Any]
    rows: Sequence[tuple[float, float, float, float, float]]
    sequence_ids: Sequence[int] | None = None
    optional: dict[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    cases: Sequence[Case]
    #: (all parameters, tokens) → w ``[N]`` with −∂loss/∂logprobs = Â r w.
    weight: Callable[[Parameters, Tokens], torch.Tensor]
    #: Whether the loss holds a factor constant that depends on π, so that no finite difference of the loss is
    #: its gradient.
    stop_gradient: Callable[[Parameters], bool] = lambda parameters: False
    #: Parameters of which 0 is an allowed value.
    zero_allowed: Sequence[str] = ()


def _surrogate_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return torch.ones_like(tokens.ratio)


def _ppo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    r, up = tokens.ratio, tokens.advantages > 0
    dropped = torch.where(up, r > 1 + parameters["ratio_high"], r < 1 - parameters["ratio_low"])
    if parameters["dual_clip"] is not None:
        dropped = dropped | (~up & (r > parameters["dual_clip"]))
    return (~dropped).double()


def _signed(tokens: Tokens, size: torch.Tensor) -> torch.Tensor:
    """sign(Â (r − 1)) · size."""
    return torch.where(tokens.harmful, size, -size)


def _spo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return 1 - _signed(tokens, (tokens.ratio - 1).abs()) / parameters["epsilon"]


def _dppo_tv_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    kept = (~(tokens.harmful & (tokens.shift.abs() > parameters["delta"]))).double()
    cap = parameters["ratio_cap"]
    return kept if cap is None else kept * tokens.ratio.clamp(max=cap) / tokens.ratio


def _drpo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    zone = parameters["deadzone"]
    excess = (tokens.shift.abs() - zone).clamp(min=0)
    size = 1.0 if parameters["advantage_weighted"] else tokens.advantages.abs()
    return 1 - _signed(tokens, excess) / ((parameters["delta"] - zone) * size)


#: Registry name → facts. The rows in every table: r = 1.5 (|π − μ| = .1), .5 (.1), 1.5 (.1), .25 (.3), 1 (0),
#: 3 (.6), 1.5 (.2), with both signs of the advantage on diverging and converging tokens.
FACTS: dict[str, Facts] = {
    "surrogate": Facts(
        weight=_surrogate_weight,
        cases=[
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 0.5, 1.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                    (0.6, 0.4, 0.5, -0.75, 1.0),
                ],
            ),
        ],
    ),
    "ppo": Facts(
        weight=_ppo_weight,
        cases=[
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, -1.2, 0.0),  # min(1.5, 1.2)
                    (0.1, 0.2, 1.0, -0.5, 1.0),  # min(.5, .8)
                    (0.3, 0.2, -2.0, 3.0, 1.0),  # min(−3, −2.4)
                    (0.1, 0.4, -2.0, 1.6, 0.0),  # min(−.5, −1.6)
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),  # min(−1.5, −.6)
                    (0.6, 0.4, 0.5, -0.6, 0.0),  # min(.75, .6)
                    (0.25, 0.2, 1.0, -1.2, 0.0),  # r = 1.25: beyond 1.2
                ],
            ),
            Case(
                {"ratio_low": 0.8, "ratio_high": 0.6, "dual_clip": 2.0},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),  # 1.5 is inside 1.6
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 0.5, 1.0),  # .25 is inside .2
                    (0.04, 0.4, -2.0, 0.4, 0.0),  # r = .1: min(−.2, −.4)
                    (0.9, 0.3, -0.5, 1.0, 0.0),  # max(−1.5, 2·−.5)
                    (0.9, 0.3, 0.5, -0.8, 0.0),  # min(1.5, .8): the dual clip is for negative advantages
                ],
            ),
        ],
    ),
    "grpo": Facts(
        weight=_ppo_weight,
        cases=[
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, -1.28, 0.0),
                    (0.25, 0.2, 1.0, -1.25, 1.0),  # clipped by ppo's .2, not by clip-higher
                    (0.1, 0.4, -2.0, 1.6, 0.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                ],
            ),
        ],
    ),
    "spo": Facts(
        weight=_spo_weight,
        cases=[
            Case(
                {},
                [  # |Â|(r − 1)²·2.5 − rÂ
                    (0.3, 0.2, 1.0, -0.875, -1.5),
                    (0.1, 0.2, 1.0, 0.125, 3.5),
                    (0.3, 0.2, -2.0, 4.25, 3.5),
                    (0.1, 0.4, -2.0, 3.3125, -2.75),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 6.5, 11.0),
                    (0.6, 0.4, 0.5, -0.4375, -1.5),
                ],
            ),
            Case(
                {"epsilon": 12.5},
                [  # |Â|(r − 1)²·.04 − rÂ
                    (0.3, 0.2, 1.0, -1.49, 0.96),
                    (0.1, 0.4, -2.0, 0.545, 0.94),
                    (0.9, 0.3, -0.5, 1.58, 1.16),
                ],
            ),
        ],
    ),
    "dppo_tv": Facts(
        weight=_dppo_tv_weight,
        stop_gradient=lambda parameters: parameters["ratio_cap"] is not None,
        cases=[
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 0.0, 0.0),  # .3 beyond .15, diverging
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),  # .6 beyond .15, converging
                    (0.6, 0.4, 0.5, 0.0, 0.0),
                ],
            ),
            Case(
                {"delta": 0.25, "ratio_cap": 2.0},
                [  # −min(r, 2) Â ln π
                    (0.3, 0.2, 1.0, 1.805959206489, 1.0),  # 1.5·ln(1/.3)
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.5, 0.5, 1.0, 0.693147180560, 1.0),  # ln 2
                    (0.9, 0.3, -0.5, -0.105360515658, 0.666666666667),  # 2·.5·ln .9; w = 2/3
                    (0.6, 0.4, 0.5, 0.383119217825, 1.0),  # 1.5·.5·ln(1/.6)
                    (0.3, 0.1, 1.0, 2.407945608652, 0.666666666667),  # 2·ln(1/.3); .2 is inside .25
                ],
            ),
        ],
    ),
    "drpo": Facts(
        weight=_drpo_weight,
        zero_allowed=["deadzone"],
        cases=[
            Case(
                {},
                [  # |Â|(π − μ)²/(.3 μ) − rÂ
                    (0.3, 0.2, 1.0, -1.333333333333, 0.333333333333),
                    (0.1, 0.2, 1.0, -0.333333333333, 1.666666666667),
                    (0.3, 0.2, -2.0, 3.333333333333, 1.666666666667),
                    (0.1, 0.4, -2.0, 2.0, -1.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 3.5, 5.0),
                    (0.6, 0.4, 0.5, -0.583333333333, -0.333333333333),
                ],
            ),
            Case(
                {"delta": 0.25, "deadzone": 0.05},
                [  # |Â|·max(0, |π − μ| − .05)²/(.4 μ) − rÂ
                    (0.3, 0.2, 1.0, -1.46875, 0.75),
                    (0.1, 0.2, 1.0, -0.46875, 1.25),
                    (0.3, 0.2, -2.0, 3.0625, 1.25),
                    (0.1, 0.4, -2.0, 1.28125, -0.25),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 2.760416666667, 3.75),
                    (0.6, 0.4, 0.5, -0.6796875, 0.25),
                    (0.22, 0.2, 1.0, -1.1, 1.0),  # .02: inside the dead zone
                ],
            ),
            Case(
                {"advantage_weighted": False},
                [  # (π − μ)²/(.3 μ) − rÂ; w = 1 − (π − μ)/(.15 Â)
                    (0.3, 0.2, 1.0, -1.333333333333, 0.333333333333),
                    (0.3, 0.2, -2.0, 3.166666666667, 1.333333333333),
                    (0.1, 0.4, -2.0, 1.25, 0.0),
                    (0.9, 0.3, -0.5, 5.5, 9.0),
                    (0.6, 0.4, 0.5, -0.416666666667, -1.666666666667),
                ],
            ),
            Case(
                {"delta": 12.5},
                [  # the paper's setting: |Â|(π − μ)²/(25 μ) − rÂ
                    (0.3, 0.2, 1.0, -1.498, 0.992),
                    (0.1, 0.4, -2.0, 0.518, 0.976),
                    (0.9, 0.3, -0.5, 1.524, 1.048),
                ],
            ),
        ],
    ),
}
