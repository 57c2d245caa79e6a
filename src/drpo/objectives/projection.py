"""Objectives that project the policy's whole distribution at a state back into a region around μ.

Shapes: ``N`` tokens, ``S`` tokens of the support (the sampled one, the others of the top K, and the rest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_count, is_nonnegative, is_positive
from drpo.divergence import at_least_float32, kl, ratio
from drpo.objectives.base import Objective, from_parameters, require
from drpo.objectives.divergence import supports

#: Halvings of the interval [0, 1] in which the projection is searched; float64 has no more digits to give.
HALVINGS = 60


@dataclass(frozen=True, kw_only=True)
class TROLL(Objective):
    """Trust-region projection: the policy that earns the reward is the nearest one within a KL of μ.

    Equation: J = (p/μ) Â − coefficient · KL(π‖sg p); p is the distribution nearest to π in KL(p‖π) with
    KL(p‖μ) ≤ kl_max: π itself inside the region, else p ∝ π^t μ^(1 − t) with t in (0, 1) at the bound. The gradient
    passes through p, t included: dt = −t Cov_p(f, df)/Var_p(f), with f = log π − log μ. Inside w = 1.
    Source: Becker et al., arXiv:2510.03817.
    Status: secondary, from public reimplementations, not by its authors, of the projection (which agree) and of the
    penalty.
    Shapes: loss [N]; the top-K fields of the batch [N, K], of which the first k are read (all, if K < k).
    Parameters:
        kl_max: bound on KL(p‖μ), nats, > 0.
        k: how many of the most likely tokens, an integer ≥ 1.
        coefficient: strength of the pull of π towards p, in units of the advantage, ≥ 0: it alone moves π back, for
            p stays at the bound however far π goes.
    Deviations: the support is TopK(μ), the sampled token and one bucket for the rest, where the paper keeps the tokens
    that hold most of the mass; the multiplier is found by bisection (theirs: ternary search on the dual). The direction
    of the penalty's KL follows a public reimplementation.
    """

    name: ClassVar[str] = "troll"
    needs: ClassVar[tuple[str, ...]] = ("topk_logprobs", "topk_behavior_logprobs", "topk_is_sampled")
    homogeneous: ClassVar[bool] = from_parameters(lambda self: self.coefficient == 0)

    kl_max: float = 0.05
    k: int = 64
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        require(is_positive(self.kl_max), self, "kl_max", "a finite number of nats > 0")
        require(is_count(self.k), self, "k", "an integer number of tokens ≥ 1")
        require(is_nonnegative(self.coefficient), self, "coefficient", "a finite number ≥ 0")

    @property
    def topk(self) -> int:
        return self.k

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        pi, mu = supports(batch, self.k)
        outside = kl(pi.detach(), mu) > self.kl_max
        projected = project(pi, mu, self.kl_max)
        r = ratio(torch.where(outside, projected[:, 0], pi[:, 0]), mu[:, 0])
        target = torch.where(outside.unsqueeze(1), projected, pi).detach()
        return self.coefficient * kl(pi, target) - r * at_least_float32(batch.advantages)


def project(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor, kl_max: float) -> torch.Tensor:
    """The point of the arc from μ to π at which KL(p‖μ) = ``kl_max``, as log p ``[N, S]``; π if it is not as far.

    On the arc p ∝ π^t μ^(1 − t) that divergence grows with t, by t Var_p(f) with f = log π − log μ. Differentiable in
    ``logprobs``: one step of Newton's method from the solution, whose value is zero and whose slope is the implicit
    derivative of t.
    """
    absent = behavior_logprobs == -torch.inf
    mu = behavior_logprobs.masked_fill(absent, 0.0)
    f = logprobs.masked_fill(absent, 0.0) - mu

    def at(t: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return (mu + t * f).masked_fill(absent, -torch.inf).log_softmax(1)

    with torch.no_grad():
        low, high = torch.zeros_like(f[:, :1]), torch.ones_like(f[:, :1])
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            inside = (kl(at(middle, f), behavior_logprobs) <= kl_max).unsqueeze(1)
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        # The last step decides between two neighbors, of which 1 (π itself) must stay reachable.
        t = torch.where((kl(at(torch.ones_like(low), f), behavior_logprobs) <= kl_max).unsqueeze(1), 1.0, low)
        p = at(t, f).exp()
        variance = (p * f.square()).sum(1, keepdim=True) - (p * f).sum(1, keepdim=True).square()
        slope = t * variance
        moves = (t < 1) & (slope > 0)
    divergence = kl(at(t, f), behavior_logprobs).unsqueeze(1)
    step = (divergence - divergence.detach()) / torch.where(moves, slope, 1.0)
    return at(t - torch.where(moves, step, 0.0), f)
