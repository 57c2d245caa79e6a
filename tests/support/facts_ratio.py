"""Numbers and weights of the objectives in drpo.objectives.ratio.

The rows of most tables: r = 1.5 (|π − μ| = .1), .5 (.1), 1.5 (.1), .25 (.3), 1 (0), 3 (.6), 1.5 (.2), with both
signs of the advantage on diverging and converging tokens.
"""

from __future__ import annotations

import torch

from support.batches import Tokens
from support.facts_schema import Case, Facts, Parameters, capped, kept, signed


def _surrogate_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return torch.ones_like(tokens.ratio)


def _ppo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    r, up = tokens.ratio, tokens.advantages > 0
    dropped = torch.where(up, r > 1 + parameters["ratio_high"], r < 1 - parameters["ratio_low"])
    if parameters["dual_clip"] is not None:
        dropped = dropped | (~up & (r > parameters["dual_clip"]))
    return kept(dropped)


def _spo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return 1 - signed(tokens, (tokens.ratio - 1).abs()) / parameters["epsilon"]


def _truly_ppo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    inside = _ppo_weight({**parameters, "dual_clip": None}, tokens)
    return inside - (1 - inside) * parameters["rollback"]


def _cispo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return capped(torch.ones_like(tokens.ratio), tokens, parameters["ratio_cap"])


def _topr_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    followed = torch.where(tokens.advantages < 0, tokens.ratio.clamp(max=1), 1.0)
    return followed / tokens.ratio


def _sapo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    up = (tokens.advantages > 0).double()
    tau = up * parameters["tau_positive"] + (1 - up) * parameters["tau_negative"]
    return 1 / torch.cosh(tau * (tokens.ratio - 1).clamp(max=600) / 2) ** 2


def _kimi_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    inside = kept(tokens.ratio.log().abs() > parameters["log_ratio_max"])
    pull = 2 * parameters["coefficient"] * tokens.ratio.log()
    return inside - pull / (tokens.ratio * tokens.advantages)


def _minirl_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    step = (tokens.logprobs - tokens.optional["proximal_logprobs"]).exp()
    too_high, too_low = step > 1 + parameters["ratio_high"], step < 1 - parameters["ratio_low"]
    return kept(torch.where(tokens.advantages > 0, too_high, too_low))


#: Logarithms of .11, .2, .25 and .8.
LN_11, LN_20, LN_25, LN_80 = -2.207274913189721, -1.6094379124341003, -1.3862943611198906, -0.2231435513142097

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
    "truly_ppo": Facts(
        weight=_truly_ppo_weight,
        zero_allowed=["rollback"],
        cases=[
            Case(
                {},
                [  # r = 1.5: F = 1.2 − .3·.3
                    (0.3, 0.2, 1.0, -1.11, -0.3),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 1.93, -0.3),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                    (0.6, 0.4, 0.5, -0.555, -0.3),
                ],
            ),
            Case(
                {"ratio_low": 0.5, "ratio_high": 0.4, "rollback": 1.0},
                [
                    (0.3, 0.2, 1.0, -1.3, -1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 1.5, -1.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                    (0.6, 0.4, 0.5, -0.65, -1.0),
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
    "cispo": Facts(
        weight=_cispo_weight,
        stop_gradient=lambda parameters: True,
        cases=[
            Case(
                {},
                [  # −min(r, 5) Â ln π
                    (0.3, 0.2, 1.0, 1.805959206489, 1.0),
                    (0.1, 0.2, 1.0, 1.151292546497, 1.0),
                    (0.3, 0.2, -2.0, -3.611918412978, 1.0),
                    (0.1, 0.4, -2.0, -1.151292546497, 1.0),
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                    (0.9, 0.3, -0.5, -0.158040773487, 1.0),
                    (0.6, 0.4, 0.5, 0.383119217824, 1.0),
                    (0.6, 0.1, 1.0, 2.55412811883, 0.833333333333),
                ],
            ),
            Case(
                {"ratio_cap": 1.2},
                [
                    (0.3, 0.2, 1.0, 1.444767365191, 0.8),
                    (0.1, 0.2, 1.0, 1.151292546497, 1.0),
                    (0.3, 0.2, -2.0, -2.889534730382, 0.8),
                    (0.1, 0.4, -2.0, -1.151292546497, 1.0),
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                    (0.9, 0.3, -0.5, -0.063216309395, 0.4),
                    (0.6, 0.4, 0.5, 0.30649537426, 0.8),
                ],
            ),
        ],
    ),
    "aipo": Facts(
        weight=_cispo_weight,
        stop_gradient=lambda parameters: True,
        cases=[
            Case(
                {},
                [  # −min(r, 2) Â ln π
                    (0.3, 0.2, 1.0, 1.805959206489, 1.0),
                    (0.1, 0.2, 1.0, 1.151292546497, 1.0),
                    (0.3, 0.2, -2.0, -3.611918412978, 1.0),
                    (0.1, 0.4, -2.0, -1.151292546497, 1.0),
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                    (0.9, 0.3, -0.5, -0.105360515658, 0.666666666667),
                    (0.6, 0.4, 0.5, 0.383119217824, 1.0),
                ],
            ),
        ],
    ),
    "topr": Facts(
        weight=_topr_weight,
        stop_gradient=lambda parameters: True,
        cases=[
            Case(
                {},
                [  # −Â ln π, and −min(r, 1) Â ln π
                    (0.3, 0.2, 1.0, 1.203972804326, 0.666666666667),
                    (0.1, 0.2, 1.0, 2.302585092994, 2.0),
                    (0.3, 0.2, -2.0, -2.407945608652, 0.666666666667),
                    (0.1, 0.4, -2.0, -1.151292546497, 1.0),
                    (0.5, 0.5, 1.0, 0.69314718056, 1.0),
                    (0.9, 0.3, -0.5, -0.052680257829, 0.333333333333),
                    (0.6, 0.4, 0.5, 0.255412811883, 0.666666666667),
                ],
            ),
        ],
    ),
    "sapo": Facts(
        weight=_sapo_weight,
        cases=[
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, -2.489837324807, 0.940014848806),
                    (0.1, 0.2, 1.0, -1.510162675193, 0.940014848806),
                    (0.3, 0.2, -2.0, 4.787170958441, 0.934139823285),
                    (0.1, 0.4, -2.0, 2.382519769926, 0.859683410422),
                    (0.5, 0.5, 1.0, -2.0, 1.0),
                    (0.9, 0.3, -0.5, 1.696958435818, 0.388778819203),
                    (0.6, 0.4, 0.5, -1.244918662404, 0.940014848806),
                ],
            ),
            Case(
                {"tau_positive": 2.0, "tau_negative": 0.5},
                [
                    (0.3, 0.2, 1.0, -1.46211715726, 0.786447732966),
                    (0.1, 0.2, 1.0, -0.53788284274, 0.786447732966),
                    (0.3, 0.2, -2.0, 8.994824014173, 0.98453633095),
                    (0.1, 0.4, -2.0, 6.517334400735, 0.965651605012),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 2.92423431452, 0.786447732966),
                    (0.6, 0.4, 0.5, -0.73105857863, 0.786447732966),
                ],
            ),
        ],
    ),
    "kimi": Facts(
        weight=_kimi_weight,
        zero_allowed=["coefficient"],
        cases=[
            Case(
                {},
                [  # ln 1.5 = .405 is inside .5, ln .5 is not
                    (0.3, 0.2, 1.0, -1.491779902305, 0.972968992793),
                    (0.1, 0.2, 1.0, 0.024022650696, 0.138629436112),
                    (0.3, 0.2, -2.0, 3.008220097695, 1.013515503604),
                    (0.1, 0.4, -2.0, 0.096090602784, -0.277258872224),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 0.060347448041, 0.073240819245),
                    (0.6, 0.4, 0.5, -0.741779902305, 0.945937985586),
                ],
            ),
            Case(
                {"log_ratio_max": 2.0, "coefficient": 0},
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
    "minirl": Facts(
        weight=_minirl_weight,
        cases=[
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),  # π/π_old = 1.2
                    (0.3, 0.2, 1.0, 0.0, 0.0),  # 1.5
                    (0.3, 0.2, -2.0, 3.0, 1.0),  # 1.5, converging
                    (0.1, 0.4, -2.0, 0.0, 0.0),  # .5
                    (0.1, 0.4, -2.0, 0.5, 1.0),  # .9…
                    (0.5, 0.5, 1.0, -1.0, 1.0),  # .625, converging
                ],
                optional={"proximal_logprobs": [LN_25, LN_20, LN_20, LN_20, LN_11, LN_80]},
            ),
            Case(
                {"ratio_low": 0.6, "ratio_high": 0.1},
                [
                    (0.3, 0.2, 1.0, 0.0, 0.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 0.5, 1.0),  # .5 is inside .4
                ],
                optional={"proximal_logprobs": [LN_25, LN_20, LN_20]},
            ),
        ],
    ),
}
