"""Parity's batch through UniRL's own classes: do the paper's authors compute the gradient that we do?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from unirl.algorithms import CPPO, DPPO, DRPO, GRPO, StageAlgorithm

from drpo.aggregation import Mode
from drpo.integrations.parity import HORIZON, Padded
from drpo.integrations.unirl.parity import MODES, Stage, UniRLPath, part_of, step
from drpo.objectives import make_objective

#: Our objective → UniRL's class, and its arguments from the parameters of ours.
THEIRS: dict[str, tuple[Callable[..., StageAlgorithm], Callable[[Any], dict[str, Any]]]] = {
    "drpo": (DRPO, lambda ours: {"drpo_epsilon": ours.delta}),
    "spo": (DRPO, lambda ours: {"drpo_epsilon": ours.epsilon, "penalty_mu_weighted": False}),
    "dppo_tv": (DPPO, lambda ours: {"dppo_delta": ours.delta}),
    "cppo": (
        CPPO,
        lambda ours: {"cppo_delta": ours.delta, "cppo_w_min": ours.weight_min, "cppo_delta_b": ours.budget},
    ),
    "grpo": (GRPO, lambda ours: {"clip_range": ours.ratio_low, "clip_range_high": ours.ratio_high}),
}


class AuthorsPath:
    """UniRL's algorithms, each with its own backward pass: a :class:`drpo.integrations.parity.HostPath`.

    Args:
        masked: how many masked tokens to leave in each response. UniRL's CPPO counts them in its positions and its
            budget, ours does not, so that the two agree where there are none.
    """

    host = "UniRL's own classes"
    version = UniRLPath.version
    dtype = torch.float64
    modes: tuple[Mode, ...] = tuple(MODES)
    objectives = tuple(THEIRS)

    def __init__(self, masked: tuple[int, ...] = (0,)) -> None:
        self.masked = masked

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        make, arguments = THEIRS[settings["name"]]
        leaf = padded.logprobs.clone().requires_grad_(True)
        algorithm = make(
            pipeline=SimpleNamespace(ar=Stage(leaf, padded.proximal_logprobs)),
            loss_agg_mode=MODES[mode],
            horizon=HORIZON,
            sampling_temperature=1.0,
            **arguments(make_objective(**settings)),
        )
        step(algorithm, part_of(padded, self.masked), micro_batches)
        assert leaf.grad is not None
        return leaf.grad


def make_path() -> AuthorsPath:
    return AuthorsPath()
