"""Numbers and weights of the objectives in drpo.objectives.sequence.

Each table says which tokens belong to one sequence.
"""

from __future__ import annotations

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


FACTS: dict[str, Facts] = {
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
