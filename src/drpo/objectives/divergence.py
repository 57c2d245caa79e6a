"""Objectives that drop the tokens whose divergence from the behavior policy exceeds a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_count, is_number, is_positive
from drpo.divergence import (
    at_least_float32,
    binary_kl,
    binary_tv,
    kl,
    log_ratio,
    relative_shift,
    support_logprobs,
    total_variation,
)
from drpo.objectives.base import (
    Objective,
    is_diverging,
    masked_surrogate,
    require,
    sequence_mean,
)


class DPPO(Objective):
    """What the members of the DPPO family share: M r Â, with a divergence that each defines and bounds.

    M = 0 at diverging tokens beyond the bound; a member that masks other tokens overrides :meth:`dropped`.

    No dataclass of its own: a subclass declares the fields, so that they stand in the order of its docstring.
    """

    ratio_cap: float | None

    def __post_init__(self) -> None:
        require(self.ratio_cap is None or is_positive(self.ratio_cap), self, "ratio_cap", "None or a finite ratio > 0")

    def beyond(self, batch: TokenBatch) -> torch.Tensor:
        """``[N]`` bool: whether the divergence exceeds the bound."""
        raise NotImplementedError(f"{type(self).__name__} does not define beyond()")

    def dropped(self, batch: TokenBatch) -> torch.Tensor:
        """``[N]`` bool: M = 0."""
        return is_diverging(batch.advantages, log_ratio(batch.logprobs, batch.behavior_logprobs)) & self.beyond(batch)

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        return masked_surrogate(batch, self.dropped(batch.with_logprobs(batch.logprobs.detach())), self.ratio_cap)


@dataclass(frozen=True, kw_only=True)
class DPPOTV(DPPO):
    """Divergence PPO with the binary total variation: drop diverging tokens whose |π − μ| exceeds delta.

    Equation: J = M r Â, with M = 0 iff Â(r − 1) > 0 and |π − μ| > delta, else 1; w = M.
    With ratio_cap = C: J = sg(M min(r, C)) Â log π, whose gradient is M min(r, C) Â ∇log π.
    Source: Qi et al., arXiv:2602.04879, Eq. 12–13.
    Status: verified against its authors' code, sail-sg/Stable-RL@c6af1d1, verl/trainer/ppo/core_algos.py,
    _compute_token_mask_for_policy_loss (dppo_binary_tv).
    Shapes: loss [N].
    Parameters:
        delta: bound on |π − μ|, a probability, > 0; at 1 or above nothing is ever dropped.
        ratio_cap: the largest importance ratio to weigh with, a ratio, > 0; None: unbounded.
    Deviations: none known. verl's version always caps and detaches the ratio; that is ratio_cap here.
    """

    name: ClassVar[str] = "dppo_tv"

    delta: float = 0.15
    ratio_cap: float | None = None

    def __post_init__(self) -> None:
        require(is_positive(self.delta), self, "delta", "a finite probability > 0")
        super().__post_init__()

    def beyond(self, batch: TokenBatch) -> torch.Tensor:
        return binary_tv(batch.logprobs, batch.behavior_logprobs) > self.delta


@dataclass(frozen=True, kw_only=True)
class IPO(DPPOTV):
    """INTELLECT policy optimization: `dppo_tv` that drops converging tokens too, with a capped ratio.

    Equation: J = sg(M min(r, ratio_cap)) Â log π, with M = 1 iff |π − μ| ≤ delta, whatever the sign of Â(r − 1), else
    0; w = M min(1, ratio_cap / r).
    Source: prime-rl, docs.primeintellect.ai/prime-rl/ipo, its default since August 2026: the mask of DPPO,
    arXiv:2602.04879, without the condition on the direction.
    Status: verified against its authors' code, PrimeIntellect-ai/prime-rl@559b447, src/prime_rl/trainer/rl/loss.py,
    ipo_loss_fn (the mask), and its text of autumn 2026, IPOLoss (the cap and both defaults).
    Shapes: loss [N].
    Parameters:
        delta: bound on |π − μ|, a probability, > 0; at 1 or above nothing is ever dropped.
        ratio_cap: the largest importance ratio to weigh with, a ratio, > 0.
    Deviations: prime-rl's value is that of the capped ratio times Â; the gradient is the same. At 559b447 it had
    another default (0.1), no cap and a small squared log-ratio on every token, which the later text removed. Its score
    centering is not part of the objective.
    """

    name: ClassVar[str] = "ipo"

    delta: float = 0.3
    ratio_cap: float = 1e4

    def __post_init__(self) -> None:
        require(is_positive(self.ratio_cap), self, "ratio_cap", "a finite ratio > 0")
        super().__post_init__()

    def dropped(self, batch: TokenBatch) -> torch.Tensor:
        return self.beyond(batch)


@dataclass(frozen=True, kw_only=True)
class DPPOKL(DPPO):
    """Divergence PPO with the binary KL: drop diverging tokens whose KL(Bernoulli(μ)‖Bernoulli(π)) exceeds kl_max.

    Equation: J = M r Â, with M = 0 iff Â(r − 1) > 0 and μ log(μ/π) + (1 − μ) log((1 − μ)/(1 − π)) > kl_max, else 1;
    w = M. ratio_cap as in `dppo_tv`.
    Source: Qi et al., arXiv:2602.04879 (Binary-KL).
    Status: verified against its authors' code, sail-sg/Stable-RL@c6af1d1, verl/trainer/ppo/core_algos.py,
    _compute_token_mask_for_policy_loss (dppo_binary_kl).
    Shapes: loss [N].
    Parameters:
        kl_max: bound on the binary KL, nats, > 0.
        ratio_cap: the largest importance ratio to weigh with, a ratio, > 0; None: unbounded.
    Deviations: none known. verl adds 1e-8 to both probabilities of the other tokens; here π = 1 > μ is an infinite
    divergence and μ = 1 contributes 0.
    """

    name: ClassVar[str] = "dppo_kl"

    kl_max: float = 0.05
    ratio_cap: float | None = None

    def __post_init__(self) -> None:
        require(is_positive(self.kl_max), self, "kl_max", "a finite number of nats > 0")
        super().__post_init__()

    def beyond(self, batch: TokenBatch) -> torch.Tensor:
        return binary_kl(batch.logprobs, batch.behavior_logprobs) > self.kl_max


class DPPOTopK(DPPO):
    """What the top-K members share: the divergence of whole distributions, cut down to a support."""

    needs: ClassVar[tuple[str, ...]] = ("topk_logprobs", "topk_behavior_logprobs", "topk_is_sampled")

    k: int

    def __post_init__(self) -> None:
        require(is_count(self.k), self, "k", "an integer number of tokens ≥ 1")
        super().__post_init__()

    @property
    def topk(self) -> int:
        return self.k


@dataclass(frozen=True, kw_only=True)
class DPPOTopKTV(DPPOTopK):
    """Divergence PPO with the total variation over the k most likely tokens, the sampled one and the rest.

    Equation: J = M r Â, with M = 0 iff Â(r − 1) > 0 and ½ Σ |π − μ| > delta, else 1; w = M. The sum runs over
    TopK(μ) ∪ {y_t} and one bucket for all other tokens.
    Source: Qi et al., arXiv:2602.04879, Eq. 15–16.
    Status: verified against its authors' code, sail-sg/Stable-RL@c6af1d1, verl/workers/actor/utils.py, compute_topk_kl
    (final_tv).
    Shapes: loss [N]; the top-K fields of the batch [N, K], of which the first k are read (all, if K < k).
    Parameters:
        delta: bound on the total variation, a probability, > 0; at 1 or above nothing is ever dropped.
        k: how many of the most likely tokens, an integer ≥ 1.
        ratio_cap: the largest importance ratio to weigh with, a ratio, > 0; None: unbounded.
    Deviations: the sampled token is always in the support, as printed; the authors' code keeps TopK(μ) alone.
    """

    name: ClassVar[str] = "dppo_topk_tv"

    delta: float = 0.15
    k: int = 20
    ratio_cap: float | None = None

    def __post_init__(self) -> None:
        require(is_positive(self.delta), self, "delta", "a finite probability > 0")
        super().__post_init__()

    def beyond(self, batch: TokenBatch) -> torch.Tensor:
        return total_variation(*supports(batch, self.k)) > self.delta


@dataclass(frozen=True, kw_only=True)
class DPPOTopKKL(DPPOTopK):
    """Divergence PPO with KL(μ‖π) over the k most likely tokens, the sampled one and the rest.

    Equation: J = M r Â, with M = 0 iff Â(r − 1) > 0 and Σ μ log(μ/π) > kl_max, else 1; w = M. The sum runs over
    TopK(μ) ∪ {y_t} and one bucket for all other tokens.
    Source: Qi et al., arXiv:2602.04879, Eq. 15–16.
    Status: verified against its authors' code, sail-sg/Stable-RL@c6af1d1, verl/workers/actor/utils.py, compute_topk_kl
    (final_kl).
    Shapes: loss [N]; the top-K fields of the batch [N, K], of which the first k are read (all, if K < k).
    Parameters:
        kl_max: bound on the KL, nats, > 0.
        k: how many of the most likely tokens, an integer ≥ 1.
        ratio_cap: the largest importance ratio to weigh with, a ratio, > 0; None: unbounded.
    Deviations: the sampled token is always in the support, as printed; the authors' code keeps TopK(μ) alone. The
    bucket of all other tokens is given a few units of rounding at least (1e-6 in float32; theirs 1e-12).
    """

    name: ClassVar[str] = "dppo_topk_kl"

    kl_max: float = 0.05
    k: int = 20
    ratio_cap: float | None = None

    def __post_init__(self) -> None:
        require(is_positive(self.kl_max), self, "kl_max", "a finite number of nats > 0")
        super().__post_init__()

    def beyond(self, batch: TokenBatch) -> torch.Tensor:
        pi, mu = supports(batch, self.k)
        return kl(mu, pi) > self.kl_max


def supports(batch: TokenBatch, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log π and log μ over the sampled token, the other tokens of the first ``k`` of the top K, and the rest."""
    assert batch.topk_logprobs is not None
    assert batch.topk_behavior_logprobs is not None and batch.topk_is_sampled is not None
    sampled = batch.topk_is_sampled[:, :k]
    return (
        support_logprobs(batch.logprobs, batch.topk_logprobs[:, :k], sampled),
        support_logprobs(at_least_float32(batch.behavior_logprobs), batch.topk_behavior_logprobs[:, :k], sampled),
    )


@dataclass(frozen=True, kw_only=True)
class VACO(Objective):
    """Drop the diverging tokens of the sequences that have moved too far on average.

    Equation: J = M r Â, with M = 0 iff Â(r − 1) > 0 and mean_t |r_t − 1| > ratio_shift over the sequence, else 1;
    w = M. Under μ the mean of |r − 1| is twice the total variation.
    Source: Honari et al., arXiv:2603.01365 (the filter of VACO).
    Status: secondary, from allenai/open-instruct@e6c3044, open_instruct/grpo_utils.py, compute_rho_correction
    (rho_mask_tv_divergence), an adaptation to LLMs.
    Shapes: loss [N].
    Parameters:
        ratio_shift: bound on the sequence's mean |r − 1|, a ratio, > 0.
    Deviations: whether the paper averages over a sequence or over a mini-batch is open; the adaptation to LLMs averages
    over a sequence, of π_old and μ. Its other half, V-trace advantages, needs a critic. The default is ours.
    """

    name: ClassVar[str] = "vaco"
    token_local: ClassVar[bool] = False

    ratio_shift: float = 0.2

    def __post_init__(self) -> None:
        require(is_positive(self.ratio_shift), self, "ratio_shift", "a finite ratio > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        here = batch.logprobs.detach()
        moved = sequence_mean(relative_shift(here, batch.behavior_logprobs).abs(), batch)
        diverging = is_diverging(batch.advantages, log_ratio(here, batch.behavior_logprobs))
        return masked_surrogate(batch, diverging & (moved > self.ratio_shift))


@dataclass(frozen=True, kw_only=True)
class CPPO(Objective):
    """Cumulative prefix-divergence policy optimization: DPPO's mask with a budget that the prefix uses up.

    Equation: J = M r Â; with t = 1 … T the position in the sequence, D_t = |π − μ|,
    v_t = 1 − (1 − weight_min)(t − 1)/(T − 1), Z_t = v_t D_t and b = clamp(P90(D), budget, 2 budget):
    M_t = 1 iff Â(r − 1) ≤ 0 or Z_t ≤ min(delta, delta + b Σ_{j<t} v_j − Σ_{j<t} Z_j), else 0; w = M.
    Source: Mao et al., arXiv:2606.10968, Eq. 8–11 and 22.
    Status: verified against the paper, Section 3.3, Eq. 8–9, and its authors' code, Tencent-Hunyuan/UniRL@30899fc,
    unirl/algorithms/cppo.py, _cppo_mask.
    Shapes: loss [N].
    Parameters:
        delta: bound on the weighted |π − μ|, a probability, > 0; the paper takes 0.15 for dense models.
        weight_min: weight of the last position (the first has 1), in (0, 1].
        budget: the least average |π − μ| that a prefix may spend freely, a probability, > 0.
    Deviations: D is the authors' code's; the paper's experiments take the total variation over 20 tokens for it. A
    sequence of one token has v = 1. Masked tokens inside a response, a tool's answer for example, are no tokens here;
    the authors' code counts them in t, T, P90 and the budget.
    """

    name: ClassVar[str] = "cppo"
    token_local: ClassVar[bool] = False

    delta: float = 0.2
    weight_min: float = 0.8
    budget: float = 0.02

    def __post_init__(self) -> None:
        require(is_positive(self.delta), self, "delta", "a finite probability > 0")
        allowed = is_number(self.weight_min) and 0 < self.weight_min <= 1
        require(allowed, self, "weight_min", "a number in (0, 1]")
        require(is_positive(self.budget), self, "budget", "a finite probability > 0")

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        here = batch.logprobs.detach()
        diverging = is_diverging(batch.advantages, log_ratio(here, batch.behavior_logprobs))
        return masked_surrogate(batch, diverging & self.beyond(batch, here))

    def beyond(self, batch: TokenBatch, logprobs: torch.Tensor) -> torch.Tensor:
        """``[N]`` bool: Z_t exceeds what the prefix left of the budget."""
        # Sums run over the whole packed batch before each sequence's own part is taken: in float64, or the rounding of
        # one sequence would depend on what was packed before it.
        distance = binary_tv(logprobs, batch.behavior_logprobs).double()
        index = batch.sequence_index()
        lengths = torch.zeros_like(distance).index_add(0, index, torch.ones_like(distance))
        starts = (lengths.cumsum(0) - lengths).long()
        position = torch.arange(len(batch), device=index.device) - starts[index]
        last = (lengths - 1)[index]
        weight = 1 - (1 - self.weight_min) * position / last.clamp(min=1)
        spent = weight * distance
        free = sequence_quantile(distance, index, lengths, 0.9).clamp(self.budget, 2 * self.budget)
        allowed = free * before(weight, starts[index]) - before(spent, starts[index])
        return spent > self.delta + allowed.clamp(max=0)


def before(values: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """``[N]``: the sum of ``values`` ``[N]`` from each token's sequence ``start`` ``[N]`` up to, not including, it."""
    sums = values.cumsum(0) - values
    return sums - sums[start]


def sequence_quantile(values: torch.Tensor, index: torch.Tensor, lengths: torch.Tensor, q: float) -> torch.Tensor:
    """``[N]``: at each token the ``q`` quantile (linear between neighbors) of ``values`` over its sequence."""
    order = values.argsort()
    ordered = values[order[index[order].argsort(stable=True)]]  # by sequence, ascending within each
    position = (lengths.cumsum(0) - lengths + q * (lengths - 1).clamp(min=0))[index]
    low = position.floor().long()
    high = position.ceil().long()
    return torch.lerp(ordered[low], ordered[high], position - low)
