"""Numbers and weights of the objectives in drpo.objectives.update."""

from __future__ import annotations

import struct

import torch

from support.batches import Tokens
from support.facts_schema import Case, Facts, Parameters, kept


def _m2po_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    """Algorithm 1 of the paper: drop the largest of the diverging tokens, look again."""
    squares = tokens.ratio.log() ** 2
    left = tokens.diverging
    while bool(left.any()) and float(squares[left].mean()) > parameters["second_moment_max"]:
        left = left & (squares != squares[left].max())
    return kept(tokens.diverging & ~left)


def _covariance(tokens: Tokens) -> torch.Tensor:
    return (tokens.advantages - tokens.advantages.mean()) * (tokens.logprobs - tokens.logprobs.mean())


def splitmix64(value: float) -> int:
    """The finalizer of splitmix64 on the bits of ``value``, as a signed integer; in Python's own integers."""
    (z,) = struct.unpack("<Q", struct.pack("<d", value))
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


def _clip_cov_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    r, up, covariance = tokens.ratio, tokens.advantages > 0, _covariance(tokens)
    clipped = torch.where(up, r > 1 + parameters["ratio_high"], r < 1 - parameters["ratio_low"])
    clipped = clipped & (tokens.advantages != 0)
    inside = (covariance > parameters["covariance_low"]) & (covariance < parameters["covariance_high"])
    allowed = (~clipped & inside).nonzero()[:, 0].tolist()
    count = max(1, int(parameters["fraction"] * len(tokens)))
    chosen = sorted(allowed, key=lambda i: splitmix64(float(tokens.behavior_logprobs[i])))[:count]
    weight = kept(clipped)
    weight[chosen] = 0.0
    return weight


def _kl_cov_weight(parameters: Parameters, tokens: Tokens) -> torch.Tensor:
    if not len(tokens):
        return torch.zeros(0, dtype=torch.float64)
    covariance = _covariance(tokens)
    count = max(1, int(parameters["fraction"] * len(tokens)))
    chosen = covariance >= covariance.sort(descending=True).values[count - 1]
    pull = parameters["coefficient"] * tokens.ratio.log().sign() / (tokens.ratio * tokens.advantages)
    return 1 - chosen.double() * pull


FACTS: dict[str, Facts] = {
    "m2po": Facts(
        weight=_m2po_weight,
        cases=[
            # log² r of the diverging tokens: .0091, .1644, .4805; running means .0091, .0867, .2180.
            Case(
                {},
                [
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.2, 0.4, -1.0, 0.0, 0.0),
                    (0.3, 0.2, 1.0, 0.0, 0.0),
                    (0.4, 0.4, -2.0, 2.0, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),  # converging: as far as the one above, and stays
                    (0.22, 0.2, 1.0, -1.1, 1.0),
                    (0.3, 0.3, 1.0, -1.0, 1.0),
                ],
                sequence_ids=[0, 0, 0, 1, 1, 2, 2],
            ),
            Case(
                {"second_moment_max": 0.09},
                [
                    (0.2, 0.4, -1.0, 0.0, 0.0),
                    (0.3, 0.2, 1.0, -1.5, 1.0),  # .0867
                    (0.9, 0.1, -1.0, 9.0, 1.0),  # converging: its 4.83 is in no mean
                    (0.22, 0.2, 1.0, -1.1, 1.0),
                    (0.3, 0.3, 1.0, -1.0, 1.0),  # r = 1: its 0 is in no mean
                ],
            ),
            # .0091, .1644, .1644; running means .0091, .0867, .1126: .0867 would do, but its equal goes.
            Case(
                {"second_moment_max": 0.09},
                [(0.3, 0.2, 1.0, 0.0, 0.0), (0.22, 0.2, 1.0, -1.1, 1.0), (0.3, 0.2, 2.0, 0.0, 0.0)],
            ),
            Case({"second_moment_max": 0.1}, [(0.2, 0.4, -1.0, 0.0, 0.0)]),  # nothing can stay
        ],
    ),
    "clip_cov": Facts(
        weight=_clip_cov_weight,
        zero_allowed=["covariance_low"],
        cases=[
            # C = 1.66, −.08, 6.66, 1.66, .04, −.58; of the two in (1, 5) the clip keeps the first.
            Case(
                {},
                [
                    (0.9, 0.85, 2.0, 0.0, 0.0),
                    (0.3, 0.2, 2.0, -2.4, 0.0),  # clipped
                    (0.02, 0.02, -2.0, 2.0, 1.0),
                    (0.9, 0.6, 2.0, -2.4, 0.0),  # clipped
                    (0.5, 0.5, 0.5, -0.5, 1.0),
                    (0.4, 0.3, -2.0, 2.666666666667, 1.0),  # converging
                ],
                sequence_ids=[0, 0, 1, 1, 2, 3],
            ),
            # Three of six may go, and three are in (.1, 7).
            Case(
                {
                    "ratio_low": 0.5,
                    "ratio_high": 0.6,
                    "fraction": 0.6,
                    "covariance_low": 0.1,
                    "covariance_high": 7.0,
                },
                [
                    (0.9, 0.85, 2.0, 0.0, 0.0),
                    (0.3, 0.2, 2.0, -3.0, 1.0),
                    (0.02, 0.02, -2.0, 0.0, 0.0),
                    (0.9, 0.6, 2.0, 0.0, 0.0),
                    (0.5, 0.5, 0.5, -0.5, 1.0),
                    (0.4, 0.3, -2.0, 2.666666666667, 1.0),
                ],
            ),
        ],
    ),
    "kl_cov": Facts(
        weight=_kl_cov_weight,
        zero_allowed=["coefficient"],
        cases=[
            # C = −.02, −1.27, .03, 2.07, .57, −.39, .44
            Case(
                {},
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 1.886294361120, -1.0),  # .5 + ln 4; 1 + 1/(.25·−2)
                    (0.5, 0.5, 1.0, -1.0, 1.0),
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                    (0.6, 0.4, 0.5, -0.75, 1.0),
                ],
            ),
            Case(
                {"fraction": 0.45, "coefficient": 0.1},  # three of seven
                [
                    (0.3, 0.2, 1.0, -1.5, 1.0),
                    (0.1, 0.2, 1.0, -0.5, 1.0),
                    (0.3, 0.2, -2.0, 3.0, 1.0),
                    (0.1, 0.4, -2.0, 0.638629436112, 0.8),
                    (0.5, 0.5, 1.0, -1.0, 1.0),  # chosen, but r = 1
                    (0.9, 0.3, -0.5, 1.5, 1.0),
                    (0.6, 0.4, 0.5, -0.709453489189, 0.866666666667),
                ],
                sequence_ids=[0, 0, 0, 1, 1, 2, 2],
            ),
        ],
    ),
}
