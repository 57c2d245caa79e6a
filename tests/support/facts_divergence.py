"""Numbers and weights of the objectives in drpo.objectives.divergence and drpo.objectives.projection.

The rows of most tables: r = 1.5 (|π − μ| = .1), .5 (.1), 1.5 (.1), .25 (.3), 1 (0), 3 (.6), 1.5 (.2), with both
signs of the advantage on diverging and converging tokens. The
sequence-level ones say which tokens belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from support.batches import Tokens
from support.facts_schema import Case, Facts, Parameters, capped, kept, of_sequences


def _mask_weight(divergence: torch.Tensor, bound: float, parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return capped(kept(tokens.diverging & (divergence > bound)), tokens, parameters["ratio_cap"])


def _dppo_tv_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return _mask_weight(tokens.shift.abs(), parameters["delta"], parameters, tokens)


def _ipo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return capped(kept(tokens.shift.abs() > parameters["delta"]), tokens, parameters["ratio_cap"])


def _dppo_kl_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    mu, rest, pi_rest = tokens.behavior_logprobs.exp(), -tokens.behavior_logprobs.expm1(), -tokens.logprobs.expm1()
    divergence = mu * -tokens.ratio.log() + rest * (rest / pi_rest).log()
    return _mask_weight(divergence, parameters["kl_max"], parameters, tokens)


def _support(tokens: Tokens, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """π and μ: the sampled token, the others among the first k, the rest (8 units of rounding at least)."""
    found = []
    for sampled, field in ((tokens.logprobs, "topk_logprobs"), (tokens.behavior_logprobs, "topk_behavior_logprobs")):
        others = tokens.optional[field][:, :k].exp()
        others = torch.where(tokens.optional["topk_is_sampled"][:, :k], 0.0, others)
        known = torch.cat([sampled.exp().unsqueeze(1), others], dim=1)
        rest = (1 - known.sum(1, keepdim=True)).clamp(min=8 * 2.0**-52)
        found.append(torch.cat([known, rest], dim=1))
    return found[0], found[1]


def _dppo_topk_tv_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    pi, mu = _support(tokens, parameters["k"])
    return _mask_weight((pi - mu).abs().sum(1) / 2, parameters["delta"], parameters, tokens)


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(1)


def _dppo_topk_kl_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    pi, mu = _support(tokens, parameters["k"])
    return _mask_weight(_kl(mu, pi), parameters["kl_max"], parameters, tokens)


def _vaco_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    def one(part: Tokens) -> torch.Tensor:
        return kept(part.diverging & ((part.ratio - 1).abs().mean() > parameters["ratio_shift"]))

    return of_sequences(tokens, one)


def _cppo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    """Token after token, as the paper's algorithm reads."""

    def one(part: Tokens) -> torch.Tensor:
        distance = part.shift.abs()
        budget = float(distance.quantile(0.9).clamp(parameters["budget"], 2 * parameters["budget"]))
        weights, spent, total = [], 0.0, 0.0
        for t, (d, diverging) in enumerate(zip(distance.tolist(), part.diverging.tolist(), strict=True)):
            v = 1 - (1 - parameters["weight_min"]) * t / max(len(part) - 1, 1)
            bound = min(parameters["delta"], parameters["delta"] + budget * total - spent)
            weights.append(0.0 if diverging and v * d > bound else 1.0)
            spent, total = spent + v * d, total + v
        return torch.tensor(weights, dtype=torch.float64)

    return of_sequences(tokens, one)


def _troll_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    """The derivative of the projection, by the implicit function theorem; see the docstring of the objective."""
    pi, mu = _support(tokens, parameters["k"])
    here = mu > 0
    f = torch.where(here, pi.clamp(min=1e-300).log() - mu.clamp(min=1e-300).log(), 0.0)

    def arc(t: torch.Tensor) -> torch.Tensor:
        p = torch.where(here, mu * (t * (f - f.amax(1, keepdim=True))).exp(), 0.0)
        return p / p.sum(1, keepdim=True)

    low, high = torch.zeros(len(tokens), 1, dtype=torch.float64), torch.ones(len(tokens), 1, dtype=torch.float64)
    for _ in range(100):
        t = (low + high) / 2
        near = (_kl(arc(t), mu) <= parameters["kl_max"]).unsqueeze(1)
        low, high = torch.where(near, t, low), torch.where(near, high, t)
    p = arc(low)
    # Of log π_y: the sampled token's f rises by 1, that of the rest falls by π_y / π_rest.
    df = torch.zeros_like(f)
    df[:, 0], df[:, -1] = 1, -pi[:, 0] / pi[:, -1]
    mean, mean_df = (p * f).sum(1, keepdim=True), (p * df).sum(1, keepdim=True)
    covariance = (p * (f - mean) * (df - mean_df)).sum(1, keepdim=True)
    dt = -low * covariance / (p * (f - mean) ** 2).sum(1, keepdim=True)
    dlog = (low * (df - mean_df) + (f - mean) * dt)[:, 0]
    pull = pi[:, 0] * ((pi[:, 0] / p[:, 0]).log() - (pi[:, -1] / p[:, -1]).log())
    gain = p[:, 0] / mu[:, 0] * dlog - parameters["coefficient"] * pull / tokens.advantages
    return torch.where(_kl(pi, mu) > parameters["kl_max"], gain / tokens.ratio, 1.0)


#: .75 ln 1.5 + .25 ln .5, and logarithms of the probabilities in the names.
KL_75_50 = 0.13081203594113697
LN_10, LN_20, LN_30, LN_40 = -2.3025850929940455, -1.6094379124341003, -1.2039728043259361, -0.916290731874155
LN_50, LN_60 = -0.6931471805599453, -0.5108256237659907

#: Six tokens with the two most likely of their vocabulary: (π, μ) of each, and which one was sampled.
TOPK: dict[str, Sequence[Any]] = {
    "topk_logprobs": [
        [LN_30, LN_50], [LN_30, LN_20], [LN_40, LN_10], [LN_10, LN_60], [LN_50, LN_30], [LN_30, LN_20],
    ],
    "topk_behavior_logprobs": [
        [LN_20, LN_60], [LN_50, LN_20], [LN_40, LN_30], [LN_40, LN_30], [LN_50, LN_30], [LN_20, LN_10],
    ],
    "topk_is_sampled": [
        [True, False], [False, False], [False, False], [True, False], [True, False], [True, False],
    ],
}  # fmt: skip
#: What both divergences say of them at their defaults.
TOPK_ROWS = [
    (0.3, 0.2, 1.0, -1.5, 1.0),  # TV ½(.1 + .1 + 0) = .1; KL .2 ln(2/3) + .6 ln 1.2 = .028
    (0.3, 0.2, 1.0, 0.0, 0.0),  # ½(.1 + .2 + 0 + .1) = .2; .2 ln(2/3) + .5 ln(5/3) + .1 ln .5 = .105
    (0.3, 0.2, 1.0, 0.0, 0.0),  # ½(.1 + 0 + .2 + .1) = .2; .2 ln(2/3) + .3 ln 3 + .1 ln .5 = .179
    (0.1, 0.4, -2.0, 0.0, 0.0),  # ½(.3 + .3 + 0) = .3; .4 ln 4 + .3 ln .5 = .347
    (0.5, 0.5, 1.0, -1.0, 1.0),
    (0.3, 0.2, -2.0, 3.0, 1.0),  # converging
]

FACTS: dict[str, Facts] = {
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
    "ipo": Facts(
        weight=_ipo_weight,
        stop_gradient=lambda parameters: True,
        cases=[
            Case(
                {},
                [  # −M r Â ln π, with M = 1 iff |π − μ| ≤ .3
                    (0.3, 0.2, 1.0, 1.805959206489, 1.0),
                    (0.1, 0.2, 1.0, 1.151292546497, 1.0),
                    (0.3, 0.2, -2.0, -3.611918412978, 1.0),
                    (0.1, 0.45, -2.0, 0.0, 0.0),  # .35, diverging
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                    (0.9, 0.3, -0.5, 0.0, 0.0),  # .6, converging: dppo_tv keeps it
                    (0.6, 0.2, 0.5, 0.0, 0.0),
                    (0.2, 0.00001, 1.0, 16094.379124341, 0.5),  # r = 2e4: 1e4·ln 5; .2 is inside .3
                ],
            ),
            Case(
                {"delta": 0.15, "ratio_cap": 1.2},
                [
                    (0.3, 0.2, 1.0, 1.444767365191, 0.8),  # 1.2·ln(1/.3)
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.9, 0.3, -0.5, 0.0, 0.0),
                    (0.4, 0.6, 0.5, 0.0, 0.0),  # .2, converging
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                ],
            ),
        ],
    ),
    "dppo_kl": Facts(
        weight=_dppo_kl_weight,
        stop_gradient=lambda parameters: parameters["ratio_cap"] is not None,
        cases=[
            Case(
                {},
                [  # the binary KLs: .026, .044, .026, .311, 0, 1.033, .081
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                    (0.6, 0.4, 0.5, 0.0, 0.0),
                ],
            ),
            Case(
                {"kl_max": 0.02, "ratio_cap": 1.2},
                [
                    (0.3, 0.2, 1.0, 0.0, 0.0),
                    (0.1, 0.2, 1.0, 1.151292546497, 1.0),
                    (0.3, 0.2, -2.0, -2.889534730382, 0.8),
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                    (0.9, 0.3, -0.5, -0.063216309395, 0.4),
                    (0.6, 0.4, 0.5, 0.0, 0.0),
                ],
            ),
        ],
    ),
    "dppo_topk_tv": Facts(
        weight=_dppo_topk_tv_weight,
        stop_gradient=lambda parameters: parameters["ratio_cap"] is not None,
        cases=[
            Case({}, TOPK_ROWS, optional=TOPK),
            Case(
                {"k": 1},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),  # nothing but the sampled token: |π − μ| = .1
                    (0.3, 0.2, 1.0, 0.0, 0.0),  # ½(.1 + .2 + .1) = .2
                    (0.3, 0.2, 1.0, -1.5, 1.0),  # ½(.1 + 0 + .1) = .1: the second of the top K is not read
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                ],
                optional=TOPK,
            ),
            Case(
                {"delta": 0.25, "ratio_cap": 1.2},
                [  # −min(r, 1.2) Â ln π
                    (0.3, 0.2, 1.0, 1.444767365191, 0.8),
                    (0.3, 0.2, 1.0, 1.444767365191, 0.8),
                    (0.3, 0.2, 1.0, 1.444767365191, 0.8),
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.5, 0.5, 1.0, 0.693147180560, 1.0),
                    (0.3, 0.2, -2.0, -2.889534730382, 0.8),
                ],
                optional=TOPK,
            ),
        ],
    ),
    "dppo_topk_kl": Facts(
        weight=_dppo_topk_kl_weight,
        stop_gradient=lambda parameters: parameters["ratio_cap"] is not None,
        cases=[
            Case({}, TOPK_ROWS, optional=TOPK),
            Case(
                {"kl_max": 0.03, "k": 1},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),  # binary: .0257
                    (0.3, 0.2, 1.0, 0.0, 0.0),  # .2 ln(2/3) + .5 ln(5/3) + .3 ln(3/4) = .088
                    (0.3, 0.2, 1.0, 0.0, 0.0),  # .2 ln(2/3) + .4 ln 1 + .4 ln(4/3) = .034
                    (0.1, 0.4, -2.0, 0.0, 0.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                ],
                optional=TOPK,
            ),
        ],
    ),
    "vaco": Facts(
        weight=_vaco_weight,
        cases=[
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, 0.0, 0.0),  # mean |r − 1| = .5
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.22, 0.2, 1.0, -1.1, 1.0),  # .05
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.1, 0.4, -2.0, 0.0, 0.0),  # .375
                    (0.5, 0.5, -2.0, 2.0, 1.0),
                ],
                sequence_ids=[0, 0, 1, 1, 2, 2],
            ),
            Case(
                {"ratio_shift": 0.6},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.9, 0.3, 0.5, 0.0, 0.0),  # 2, alone
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                ],
                sequence_ids=[0, 0, 3, 4],
            ),
        ],
    ),
    "cppo": Facts(
        weight=_cppo_weight,
        cases=[
            Case(
                {},
                [
                    # D = .1, .15, .2 with v = 1, .9, .8: Z = .1, .135, .16; P90 = .19, so b = .04.
                    (0.3, 0.2, 1.0, -1.5, 1.0),  # .1 ≤ .2
                    (0.45, 0.3, 1.0, -1.5, 1.0),  # .135 ≤ .2 + .04 − .1
                    (0.6, 0.4, 1.0, 0.0, 0.0),  # .16 > .2 + .04·1.9 − .235
                    (0.5, 0.25, 1.0, 0.0, 0.0),  # alone: .25 > .2
                    (0.3, 0.2, 1.0, -1.5, 1.0),  # alone: .1 ≤ .2
                    (0.1, 0.4, -2.0, 0.0, 0.0),  # .3 > .2
                    (0.3, 0.2, -2.0, 3.0, 1.0),  # converging
                ],
                sequence_ids=[0, 0, 0, 1, 2, 3, 3],
            ),
            Case(
                {"delta": 0.5, "weight_min": 0.5, "budget": 0.1},
                [
                    (0.25, 0.2, 1.0, -1.25, 1.0),
                    (0.6, 0.3, 1.0, -2.0, 1.0),  # Z = .15
                    (0.8, 0.2, 1.0, 0.0, 0.0),  # D = Z = .6 > .5
                    # b = .2, the prefix spent .6 of .5 + .2: .5·.3 > .1, although .15 ≤ .5.
                    (0.6, 0.3, 1.0, 0.0, 0.0),
                ],
                sequence_ids=[0, 0, 1, 1],
            ),
        ],
    ),
    "troll": Facts(
        weight=_troll_weight,
        stop_gradient=lambda parameters: parameters["coefficient"] > 0,
        zero_allowed=["coefficient"],
        cases=[
            # The top K is the sampled token alone, so the projection ends at a known Bernoulli: p = .75 from μ = .5
            # has KL .75 ln 1.5 + .25 ln .5, p = .25 as well. It does not move with π; only the pull does.
            Case(
                {"kl_max": KL_75_50},
                [
                    (0.6, 0.5, 1.0, -1.2, 1.0),  # inside
                    (0.9, 0.5, 1.0, -1.427539672073, -0.549306144334),  # .9 ln 1.2 + .1 ln .4 − 1.5; −.9 ln 3 / 1.8
                    (0.9, 0.5, -1.0, 1.572460327927, 0.549306144334),
                    (0.1, 0.5, -2.0, 1.072460327927, -0.274653072167),  # .1 ln .4 + .9 ln 1.2 + 1; .1 ln(.4/1.2)/.4
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                ],
                optional={
                    "topk_logprobs": [[-1.0]] * 5,
                    "topk_behavior_logprobs": [[-1.0]] * 5,
                    "topk_is_sampled": [[True]] * 5,
                },
            ),
            Case(
                {"kl_max": KL_75_50, "coefficient": 0},
                [(0.9, 0.5, 1.0, -1.5, 0.0), (0.1, 0.5, -2.0, 1.0, 0.0), (0.6, 0.5, 1.0, -1.2, 1.0)],
                optional={
                    "topk_logprobs": [[-1.0]] * 3,
                    "topk_behavior_logprobs": [[-1.0]] * 3,
                    "topk_is_sampled": [[True]] * 3,
                },
            ),
            Case(
                {},
                [(0.3, 0.2, 1.0, -1.5, 1.0)],  # KL .3 ln 1.5 + .5 ln(5/6) + 0 = .030: inside .05
                optional={
                    "topk_logprobs": [[LN_30, LN_50]],
                    "topk_behavior_logprobs": [[LN_20, LN_60]],
                    "topk_is_sampled": [[True, False]],
                },
            ),
        ],
    ),
}
