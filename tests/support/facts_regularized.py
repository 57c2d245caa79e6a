"""Numbers and weights of the objectives in drpo.objectives.regularized.

The rows of most tables: r = 1.5 (|π − μ| = .1), .5 (.1), 1.5 (.1), .25 (.3), 1 (0), 3 (.6), 1.5 (.2), with both
signs of the advantage on diverging and converging tokens.
"""

from __future__ import annotations

import torch

from support.batches import Tokens
from support.facts_schema import Case, Facts, Parameters, signed


def _drpo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    zone = parameters["deadzone"]
    excess = (tokens.shift.abs() - zone).clamp(min=0)
    size = 1.0 if parameters["advantage_weighted"] else tokens.advantages.abs()
    return 1 - signed(tokens, excess) / ((parameters["delta"] - zone) * size)


def _mask_drpo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    outside = tokens.shift.abs() > parameters["boundary"]
    if parameters["diverging_only"]:
        outside = outside & tokens.diverging
    full = 1 - signed(tokens, tokens.shift.abs()) / parameters["delta"]
    return torch.where(outside, full, 1.0)


def _kl_penalty_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    r = tokens.ratio
    slope = {"k1": -torch.ones_like(r), "k2": r.log(), "k3": r - 1, "reverse": r * r.log()}
    scale = tokens.advantages.abs() if parameters["advantage_weighted"] else 1.0
    pull = parameters["coefficient"] * scale * slope[parameters["estimator"]]
    return 1 - pull / (tokens.advantages * r)


def _tv_penalty_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    scale = tokens.advantages.abs() if parameters["advantage_weighted"] else 1.0
    return 1 - parameters["coefficient"] * scale * tokens.shift.sign() / tokens.advantages


def _mdpo_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return 1 - tokens.ratio.log() / (parameters["step_size"] * tokens.advantages)


def _dro_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    return (1 - parameters["beta"] * tokens.ratio.log() / tokens.advantages) / tokens.ratio


FACTS: dict[str, Facts] = {
    "dro": Facts(
        weight=_dro_weight,
        zero_allowed=["beta"],
        cases=[
            Case(
                {},
                [  # .025 ln² r − Â ln π
                    (0.3, 0.2, 1.0, 1.208082853173, 0.653151163063),
                    (0.1, 0.2, 1.0, 2.314596418342, 2.069314718056),
                    (0.3, 0.2, -2.0, -2.403835559805, 0.673424418468),
                    (0.1, 0.4, -2.0, -4.557124884596, 3.861370563888),
                    (0.5, 0.5, 1.0, 0.693147180560, 1.0),
                    (0.9, 0.3, -0.5, -0.022506533809, 0.369953742956),
                    (0.6, 0.4, 0.5, 0.259522860730, 0.639635659459),
                ],
            ),
            Case(
                {"beta": 1.0},
                [
                    (0.3, 0.2, 1.0, 1.286173781273, 0.396356594595),
                    (0.1, 0.4, -2.0, -3.644264158152, 1.227411277760),
                    (0.9, 0.3, -0.5, 0.550794222577, 1.065741525779),
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
    "mask_drpo": Facts(
        weight=_mask_drpo_weight,
        zero_allowed=["boundary"],
        cases=[
            Case(
                {},
                [  # drpo's numbers where |π − μ| > .15
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 2.0, -1.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 3.5, 5.0),
                    (0.6, 0.4, 0.5, -0.583333333333, -0.333333333333),
                ],
            ),
            Case(
                {"diverging_only": True},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 2.0, -1.0),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                    (0.6, 0.4, 0.5, -0.583333333333, -0.333333333333),
                ],
            ),
            Case(
                {"delta": 0.25, "boundary": 0.05},
                [
                    (0.3, 0.2, 1.0, -1.4, 0.6),
                    (0.1, 0.2, 1.0, -0.4, 1.4),
                    (0.3, 0.2, -2.0, 3.2, 1.4),
                    (0.1, 0.4, -2.0, 1.4, -0.2),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 2.7, 3.4),
                    (0.6, 0.4, 0.5, -0.65, 0.2),
                ],
            ),
        ],
    ),
    "kl_penalty": Facts(
        weight=_kl_penalty_weight,
        zero_allowed=["coefficient"],
        cases=[
            Case(
                {},
                [  # .1 |Â| (r − 1 − ln r) − r Â
                    (0.3, 0.2, 1.0, -1.490546510811, 0.966666666667),
                    (0.1, 0.2, 1.0, -0.480685281944, 1.1),
                    (0.3, 0.2, -2.0, 3.018906978378, 1.033333333333),
                    (0.1, 0.4, -2.0, 0.627258872224, 0.7),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.545069385567, 1.066666666667),
                    (0.6, 0.4, 0.5, -0.745273255405, 0.966666666667),
                ],
            ),
            Case(
                {"estimator": "k1", "coefficient": 0.2},
                [
                    (0.3, 0.2, 1.0, -1.581093021622, 1.133333333333),
                    (0.1, 0.2, 1.0, -0.361370563888, 1.4),
                    (0.3, 0.2, -2.0, 2.837813956757, 0.866666666667),
                    (0.1, 0.4, -2.0, 1.054517744448, 0.2),
                ],
            ),
            Case(
                {"estimator": "k2", "coefficient": 0.2, "advantage_weighted": False},
                [
                    (0.3, 0.2, 1.0, -1.483559804611, 0.945937985586),
                    (0.1, 0.2, 1.0, -0.451954698608, 1.277258872224),
                    (0.3, 0.2, -2.0, 3.016440195389, 1.027031007207),
                    (0.1, 0.4, -2.0, 0.692181205567, 0.445482255552),
                ],
            ),
            Case(
                {"estimator": "reverse", "coefficient": 0.5},
                [
                    (0.3, 0.2, 1.0, -1.445901168919, 0.797267445946),
                    (0.1, 0.2, 1.0, -0.42328679514, 1.34657359028),
                    (0.3, 0.2, -2.0, 3.108197662162, 1.202732554054),
                    (0.1, 0.4, -2.0, 0.90342640972, 0.30685281944),
                ],
            ),
        ],
    ),
    "tv_penalty": Facts(
        weight=_tv_penalty_weight,
        zero_allowed=["coefficient"],
        cases=[
            Case(
                {},
                [  # .1 |Â| |r − 1| − r Â
                    (0.3, 0.2, 1.0, -1.45, 0.9),
                    (0.1, 0.2, 1.0, -0.45, 1.1),
                    (0.3, 0.2, -2.0, 3.1, 1.1),
                    (0.1, 0.4, -2.0, 0.65, 0.9),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.6, 1.1),
                    (0.6, 0.4, 0.5, -0.725, 0.9),
                ],
            ),
            Case(
                {"coefficient": 0.5, "advantage_weighted": False},
                [
                    (0.3, 0.2, 1.0, -1.25, 0.5),
                    (0.1, 0.2, 1.0, -0.25, 1.5),
                    (0.3, 0.2, -2.0, 3.25, 1.25),
                    (0.1, 0.4, -2.0, 0.875, 0.75),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 2.5, 2.0),
                    (0.6, 0.4, 0.5, -0.5, 0.0),
                ],
            ),
        ],
    ),
    "mdpo": Facts(
        weight=_mdpo_weight,
        cases=[
            Case(
                {},
                [  # r ln r − (r − 1) − r Â
                    (0.3, 0.2, 1.0, -1.391802337838, 0.594534891892),
                    (0.1, 0.2, 1.0, -0.34657359028, 1.69314718056),
                    (0.3, 0.2, -2.0, 3.108197662162, 1.202732554054),
                    (0.1, 0.4, -2.0, 0.90342640972, 0.30685281944),
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 2.795836866004, 3.197224577336),
                    (0.6, 0.4, 0.5, -0.641802337838, 0.189069783784),
                ],
            ),
            Case(
                {"step_size": 4.0},
                [
                    (0.3, 0.2, 1.0, -1.472950584459, 0.898633722973),
                    (0.1, 0.2, 1.0, -0.46164339757, 1.17328679514),
                    (0.3, 0.2, -2.0, 3.027049415541, 1.050683138514),
                    (0.1, 0.4, -2.0, 0.60085660243, 0.82671320486),
                ],
            ),
        ],
    ),
}
