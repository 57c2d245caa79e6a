"""Numbers and weights of the objectives in drpo.objectives.masking.

The rows of most tables: r = 1.5 (|π − μ| = .1), .5 (.1), 1.5 (.1), .25 (.3), 1 (0), 3 (.6), 1.5 (.2), with both
signs of the advantage on diverging and converging tokens.
"""

from __future__ import annotations

import torch

from support.batches import Tokens
from support.facts_schema import Case, Facts, Parameters, kept


def _icepop_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return kept((tokens.ratio < parameters["low"]) | (tokens.ratio > parameters["high"]))


def _rollout_is_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return ((tokens.ratio > 1 - parameters["ratio_low"]) & (tokens.ratio < 1 + parameters["ratio_high"])).double()


def _rec_ring_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    r, up, down = tokens.ratio, tokens.advantages >= 0, tokens.advantages <= 0
    inside = (r >= 1 - parameters["ratio_low"]) & (r <= 1 + parameters["ratio_high"])
    outside = (up & (r <= 1 - parameters["outer_low"])) | (down & (r >= 1 + parameters["outer_high"]))
    weight = (inside | outside).double()
    return weight if parameters["importance_sampling"] else weight / r


FACTS: dict[str, Facts] = {
    "icepop": Facts(
        weight=_icepop_weight,
        zero_allowed=["low"],
        cases=[
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.1, 0.4, -2.0, 0.5, 1.0),  # r = .25: inside .2
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.6, 0.1, 1.0, 0.0, 0.0),  # 6, diverging
                    (0.6, 0.1, -1.0, 0.0, 0.0),  # 6, converging
                    (0.05, 0.5, 1.0, 0.0, 0.0),  # .1, converging
                ],
            ),
            Case(
                {"low": 0.4, "high": 1.4},
                [
                    (0.3, 0.2, 1.0, 0.0, 0.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 0.0, 0.0),
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.5, 0.4, -0.5, 0.625, 1.0),
                ],
            ),
        ],
    ),
    "rollout_is": Facts(
        weight=_rollout_is_weight,
        stop_gradient=lambda parameters: True,
        cases=[
            Case(
                {},
                [  # −r Â ln π
                    (0.3, 0.2, 1.0, 0.0, 0.0),
                    (0.1, 0.2, 1.0, 0.0, 0.0),
                    (0.22, 0.2, 1.0, 1.665540505893, 1.0),  # 1.1·ln(1/.22)
                    (0.36, 0.4, -2.0, -1.838972244556, 1.0),  # −.9·2·ln(1/.36)
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                    (0.3, 0.2, -2.0, 0.0, 0.0),  # converging
                ],
            ),
            Case(
                {"ratio_low": 0.6, "ratio_high": 1.0},
                [
                    (0.3, 0.2, 1.0, 1.805959206489, 1.0),
                    (0.1, 0.2, 1.0, 1.151292546497, 1.0),
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.9, 0.3, -0.5, 0.0, 0.0),
                ],
            ),
        ],
    ),
    "rec_ring": Facts(
        weight=_rec_ring_weight,
        stop_gradient=lambda parameters: parameters["importance_sampling"],
        cases=[
            Case(
                {},
                [  # −Â ln π; w = 1/r
                    (0.22, 0.2, 1.0, 1.514127732978, 0.909090909091),
                    (0.3, 0.2, 1.0, 0.0, 0.0),  # 1.5: in the ring
                    (0.1, 0.2, 1.0, 0.0, 0.0),  # .5: in the ring
                    (0.1, 0.4, 1.0, 2.302585092994, 4.0),  # .25 ≤ .4, converging
                    (0.1, 0.4, -2.0, 0.0, 0.0),  # .25, diverging
                    (0.8, 0.2, -0.5, -0.111571775657, 0.25),  # 4 ≥ 3, converging
                    (0.8, 0.2, 0.5, 0.0, 0.0),  # 4, diverging
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                ],
            ),
            Case(
                {"ratio_high": 0.6, "outer_low": 0.45, "outer_high": 0.7, "importance_sampling": True},
                [
                    (0.3, 0.2, 1.0, 1.805959206489, 1.0),
                    (0.1, 0.2, 1.0, 1.151292546497, 1.0),  # .5 ≤ .55
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.9, 0.3, -0.5, -0.158040773487, 1.0),  # 3 ≥ 1.7: 3·.5·ln .9
                    (0.9, 0.3, 0.5, 0.0, 0.0),
                ],
            ),
        ],
    ),
}
