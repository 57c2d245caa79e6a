"""Score centering: subtract from each token's update what the behavior policy expects of it.

Shapes: ``N`` tokens, ``K`` tokens of the head of μ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_count
from drpo.divergence import at_least_float32
from drpo.errors import ConfigError
from drpo.objectives.base import Objective, require
from drpo.objectives.modifiers import Modifier

#: A tail with less of μ than this is rounding of the head's probabilities, and counts as none.
NO_TAIL = 1e-5
#: log π of a token of the tail by itself: so rare that its shift is nothing, whatever the ratio.
RARE = -30.0


@dataclass(frozen=True, kw_only=True)
class ScoreCentering(Modifier):
    """Center the weighted score under μ: an advantage shared by all tokens of a state has no expected effect.

    Equation: J = J_objective − Σ_{v ∈ H} sg(c_v) log π_v, with
    c_v = μ_v g(π_v, μ_v) − α g_tail π_v, g = ∂J_objective/∂log π of token v under the sampled token's advantage,
    α = (1 − Σ_H μ_v) / (1 − Σ_H π_v), and g_tail that of a rare token with the ratio 1/α.
    Source: Marek, Ryabinin, arXiv:2609.20807; its tail as in vime's score_centering_correction.
    Status: secondary, from PrimeIntellect-ai/prime-rl, trainer/rl/loss.py, IPOLoss.score_centering_loss, and the
    derivation in vime's documentation, which agree where nothing is left of the tail. The paper itself was not read.
    Anchor: behavior. The objective must look at one token and at π and μ alone.
    Parameters:
        k: most likely tokens of μ that make the head H, a count, ≥ 1.
    Deviations: the sources center a function of the ratio; here g is the objective's own, so that one of |π − μ| is
    centered too. In the tail, whose tokens are not known one by one, its shift counts as 0. Where the head is the whole
    support (top-k, top-p or min-p with at most k tokens), or the whole vocabulary, nothing is approximate.
    """

    name: ClassVar[str] = "score_centering"
    needs: ClassVar[tuple[str, ...]] = ("topk_logprobs", "topk_behavior_logprobs")

    k: int = 128

    def __post_init__(self) -> None:
        require(is_count(self.k), self, "k", "a whole number ≥ 1")

    @property
    def topk(self) -> int:
        return self.k

    def check(self, objective: Objective, anchor: str) -> None:
        if anchor != "behavior" or not objective.token_local or objective.needs or objective.topk:
            raise ConfigError(
                f"score_centering is not defined on {objective.name} with anchor={anchor}: it expects the objective's "
                "update under μ, which must depend on one token's π and μ alone. Use an objective of single tokens, "
                "such as surrogate, grpo, ipo, dppo_tv or drpo, with anchor=behavior."
            )

    def applied(self, loss: torch.Tensor, objective: Objective, batch: TokenBatch) -> torch.Tensor:
        assert batch.topk_logprobs is not None and batch.topk_behavior_logprobs is not None
        log_pi = at_least_float32(batch.topk_logprobs[:, : self.k])
        log_mu = at_least_float32(batch.topk_behavior_logprobs[:, : self.k])
        expected = centering_coefficients(objective, log_pi.detach(), log_mu, batch.advantages)
        return loss + (expected * log_pi).sum(1)


def centering_coefficients(
    objective: Objective, log_pi: torch.Tensor, log_mu: torch.Tensor, advantages: torch.Tensor
) -> torch.Tensor:
    """``[N, K]``: what multiplies log π of the head in the loss: the expectation of −∂loss/∂log π under μ.

    Args:
        objective: looks at one token's π and μ alone.
        log_pi: ``[N, K]``, log π of the head, without gradient.
        log_mu: ``[N, K]``, log μ of the head.
        advantages: ``[N]``.
    """
    pi, mu = log_pi.double().exp(), log_mu.double().exp()
    left = (1.0 - mu.sum(1)).clamp(min=0.0)
    alpha = torch.where(left > NO_TAIL, left / (1.0 - pi.sum(1)).clamp(min=NO_TAIL), 1.0)
    rare = torch.full_like(alpha, RARE)
    slopes = _pushes(objective, log_pi, log_mu, advantages)
    tail = _pushes(objective, rare.unsqueeze(1), (rare + alpha.log()).unsqueeze(1), advantages)
    share = torch.where(left > NO_TAIL, alpha, 0.0).unsqueeze(1)
    return (mu * slopes - share * tail * pi).to(log_pi.dtype)


def _pushes(objective: Objective, log_pi: torch.Tensor, log_mu: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """``[N, K]`` float64: −∂loss/∂log π of each of these tokens, had it been sampled."""
    leaf = log_pi.detach().double().flatten().requires_grad_(True)
    repeated = advantages.double().repeat_interleave(log_pi.shape[1])
    with torch.enable_grad():
        tokens = TokenBatch(leaf, log_mu.double().flatten(), repeated, validate=False)
        (slopes,) = torch.autograd.grad((objective.loss(tokens) + 0.0 * leaf).sum(), leaf)
    return -slopes.view_as(log_pi)
