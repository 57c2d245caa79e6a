"""Numbers and weights of the objectives in drpo.objectives.sequence.

Each table says which tokens belong to one sequence.
"""

from __future__ import annotations

import math

import torch

from support.batches import Tokens
from support.facts_schema import Case, Facts, Parameters, kept, of_sequences


def _gspo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    def one(part: Tokens) -> torch.Tensor:
        s = part.ratio.log().mean().exp()
        dropped = torch.where(part.advantages > 0, s > 1 + parameters["ratio_high"], s < 1 - parameters["ratio_low"])
        return (kept(dropped) * part.advantages).mean() * s / (part.advantages * part.ratio)

    return of_sequences(tokens, one)


def _gmpo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    def one(part: Tokens) -> torch.Tensor:
        bound, log_r = parameters["log_ratio_max"], part.ratio.log()
        clipped = torch.where(part.advantages > 0, log_r.clamp(max=bound), log_r.clamp(min=-bound))
        mean = clipped.mean().exp() * part.advantages.mean()
        return kept(clipped != log_r) * mean / (part.advantages * part.ratio)

    return of_sequences(tokens, one)


def _luspo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    lengths = of_sequences(tokens, lambda part: torch.full((len(part),), float(len(part)), dtype=torch.float64))
    return lengths * _gspo_weight(parameters, tokens)


def _vespo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    def one(part: Tokens) -> torch.Tensor:
        product = part.ratio.prod()
        up, down = (
            product**k * (rate * (1 - product)).exp()
            for k, rate in (
                (parameters["k_positive"], parameters["lambda_positive"]),
                (parameters["k_negative"], parameters["lambda_negative"]),
            )
        )
        return torch.where(part.advantages >= 0, up, down) / part.ratio

    return of_sequences(tokens, one)


def _fipo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    """Token after token, from the last one back."""
    dual = parameters["dual_clip"]

    def one(part: Tokens) -> torch.Tensor:
        weights, future = [], 0.0
        for r, advantage in reversed(list(zip(part.ratio.tolist(), part.advantages.tolist(), strict=True))):
            beyond = dual is not None and r > dual
            future = future * 2 ** (-1 / parameters["half_life"]) + (0.0 if beyond else math.log(r))
            f = min(max(math.exp(min(future, 9.0)), 1 - parameters["influence_low"]), 1 + parameters["influence_high"])
            if advantage < 0 and r > parameters["safety_ratio"]:
                f = min(max(f, 0.8), 1.0)
            too_high = r > 1 + parameters["ratio_high"] if advantage > 0 else beyond
            too_low = advantage < 0 and r < 1 - parameters["ratio_low"]
            weights.append(0.0 if too_high or too_low else f)
        return torch.tensor(weights[::-1], dtype=torch.float64)

    return of_sequences(tokens, one)


FACTS: dict[str, Facts] = {
    "luspo": Facts(
        weight=_luspo_weight,
        cases=[
            Case(
                {},
                [
                    (0.4, 0.2, 1.0, -2.0, 1.0),  # gspo's −1 and .5, times 2
                    (0.2, 0.4, 1.0, -2.0, 4.0),
                    (0.8, 0.2, 1.0, -2.0008, 0.0),
                    (0.5, 0.5, 1.0, -2.0008, 0.0),
                    (0.3, 0.3, -2.0, 2.0, 1.0),  # alone
                ],
                sequence_ids=[0, 0, 1, 1, 2],
            ),
            Case(
                {"ratio_low": 0.6, "ratio_high": 1.5},
                [(0.8, 0.2, 1.0, -4.0, 1.0), (0.5, 0.5, 1.0, -4.0, 4.0)],
                sequence_ids=[0, 0],
            ),
        ],
    ),
    "vespo": Facts(
        weight=_vespo_weight,
        stop_gradient=lambda parameters: True,
        zero_allowed=["k_positive", "k_negative"],
        cases=[
            Case(
                {},
                [  # −φ Â ln π
                    (0.4, 0.2, 1.0, 0.916290731874, 0.5),  # W = 2 · 1/2: φ = 1
                    (0.2, 0.4, 1.0, 1.609437912434, 2.0),
                    (0.3, 0.2, 1.0, 0.604445950448, 0.334695240223),  # φ(1.5) = 2.25 e^−1.5 = .502
                    (0.5, 0.5, 1.0, 0.347989593161, 0.502042860334),
                    (0.1, 0.4, -2.0, -0.322483451400, 0.280105566896),  # φ(1/4) = e^1.5/64 = .070
                    (0.3, 0.3, -2.0, -0.168619742442, 0.070026391724),
                    (0.22, 0.2, -1.0, -1.649991371532, 0.990664211224),  # φ(1.1) = 1.331 e^−.2 = 1.09
                ],
                sequence_ids=[0, 0, 1, 1, 2, 2, 3],
            ),
            Case(
                {"k_positive": 1.0, "lambda_positive": 0.5, "k_negative": 0.5, "lambda_negative": 1.0},
                [
                    (0.3, 0.2, 1.0, 1.406482444209, 0.778800783071),  # 1.5 e^−.25 = 1.168
                    (0.5, 0.5, 1.0, 0.809735350506, 1.168201174607),
                    (0.1, 0.4, -2.0, -4.874572680120, 4.234000033225),  # ½ e^.75 = 1.06
                    (0.3, 0.3, -2.0, -2.548810446759, 1.058500008306),
                ],
                sequence_ids=[0, 0, 1, 1],
            ),
        ],
    ),
    "fipo": Facts(
        weight=_fipo_weight,
        stop_gradient=lambda parameters: True,
        zero_allowed=["influence_low", "influence_high"],
        cases=[
            Case(
                {},
                [
                    (0.21, 0.2, 1.0, -1.05, 1.0),  # the future sinks: f stays 1
                    (0.22, 0.2, 1.0, -1.1, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.6, 0.1, -1.0, 6.0, 1.0),  # exp F = 8.9, but r = 6 is beyond the safety ratio
                    (0.3, 0.2, -1.0, 1.8, 1.2),  # exp F = 1.5, clipped to 1.2
                    (0.5, 0.5, 1.0, -1.097755761808, 1.097755761808),  # 1.1^(2^(−1/32))
                    (0.55, 0.5, 1.0, -1.21, 1.1),
                ],
                sequence_ids=[0, 0, 0, 1, 1, 2, 2],
            ),
            Case(
                {
                    "ratio_low": 0.2,
                    "ratio_high": 0.6,
                    "dual_clip": 2.0,
                    "half_life": 1.0,
                    "influence_low": 0.5,
                    "influence_high": 1.0,
                    "safety_ratio": 1.2,
                },
                [
                    (0.21, 0.2, 1.0, -1.165751817943, 1.110239826613),  # 1.05 · 1.25^(1/4)
                    (0.6, 0.2, 1.0, -1.788854382, 0.0),  # r = 3 is not in F: 1.25^(1/2) · 1.6
                    (0.25, 0.2, 1.0, -1.5625, 1.25),
                    (0.3, 0.2, -1.0, 1.5, 1.0),  # 1.5 · .5^(1/2) = 1.06, beyond the safety ratio
                    (0.3, 0.6, -1.0, 0.4, 0.0),  # f = .5, clip .8
                    (0.4, 0.4, -1.0, 1.0, 1.0),
                ],
                sequence_ids=[0, 0, 0, 1, 1, 1],
            ),
        ],
    ),
    "gspo": Facts(
        weight=_gspo_weight,
        cases=[
            Case(
                {},
                [
                    (0.4, 0.2, 1.0, -1.0, 0.5),  # r = 2 and 1/2: s = 1
                    (0.2, 0.4, 1.0, -1.0, 2.0),
                    (0.8, 0.2, 1.0, -1.0004, 0.0),  # r = 4 and 1: s = 2
                    (0.5, 0.5, 1.0, -1.0004, 0.0),
                    (0.1, 0.4, -2.0, 1.9994, 0.0),  # r = 1/4 and 1: s = 1/2
                    (0.3, 0.3, -2.0, 1.9994, 0.0),
                    (0.8, 0.2, -1.0, 2.0, 0.5),  # s = 2, converging
                    (0.5, 0.5, -1.0, 2.0, 2.0),
                ],
                sequence_ids=[0, 0, 1, 1, 2, 2, 3, 3],
            ),
            Case(
                {"ratio_low": 0.6, "ratio_high": 1.5},
                [
                    (0.8, 0.2, 1.0, -2.0, 0.5),
                    (0.5, 0.5, 1.0, -2.0, 2.0),
                    (0.1, 0.4, -2.0, 1.0, 2.0),
                    (0.3, 0.3, -2.0, 1.0, 0.5),
                ],
                sequence_ids=[0, 0, 2, 2],
            ),
        ],
    ),
    "gmpo": Facts(
        weight=_gmpo_weight,
        cases=[
            Case(
                {},
                [
                    (0.4, 0.2, 1.0, -1.221402758160, 0.0),  # ln 2 becomes .4: exp(.4/2)
                    (0.5, 0.5, 1.0, -1.221402758160, 1.221402758160),
                    (0.4, 0.2, -2.0, 2.315720269870, 0.578930067467),  # 2 exp((ln 2 − .4)/2)
                    (0.2, 0.4, -2.0, 2.315720269870, 0.0),
                    (0.2, 0.4, 1.0, -0.5, 1.0),  # no bound below for Â > 0
                ],
                sequence_ids=[0, 0, 1, 1, 2],
            ),
            Case(
                {"log_ratio_max": 1.0},
                [
                    (0.8, 0.2, -1.0, 2.0, 0.5),  # g = 2: no bound above for Â < 0
                    (0.5, 0.5, -1.0, 2.0, 2.0),
                    (0.4, 0.2, 1.0, -1.0, 0.5),
                    (0.2, 0.4, 1.0, -1.0, 2.0),
                ],
                sequence_ids=[4, 4, 5, 5],
            ),
        ],
    ),
}
