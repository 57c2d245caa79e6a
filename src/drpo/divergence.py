"""Ratio and divergences between the policy π and the behavior policy μ: the only home of this maths.

Every function takes log-probabilities in nats, works in float32 at least whatever their dtype, and returns
per-token values of the same shape ``[N]``.
"""

from __future__ import annotations

from typing import Any

import torch

#: Ratios are formed from log-ratios saturated to this many nats, so that the square of a ratio stays finite
#: in float32 (e^80 < 3.4e38). Unlike a clamp, saturation keeps a non-zero gradient. `drpo.diagnose` counts
#: the tokens it touches as ``saturated_share``.
MAX_LOG_RATIO = 40.0


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """``values`` in float32, or unchanged if they are wider than that."""
    return values if values.dtype == torch.float64 else values.float()


def log_ratio(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """log r = log π − log μ, saturated at ±MAX_LOG_RATIO in value; its gradient is 1 everywhere.

    At a mask-fill value (−1e9, −inf) instead of a log-probability it is ±MAX_LOG_RATIO too.
    """
    return _Saturated.apply(at_least_float32(logprobs) - at_least_float32(behavior_logprobs))  # pyright: ignore[reportReturnType]


class _Saturated(torch.autograd.Function):
    """A clamp that is exact in value and passes the gradient on.

    Not ``clamped.detach() + exact − exact.detach()``: at an infinity that difference is NaN.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(exact: torch.Tensor) -> torch.Tensor:
        return exact.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> torch.Tensor:
        return upstream[0]


def ratio(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """The importance ratio r = π/μ."""
    return log_ratio(logprobs, behavior_logprobs).exp()


def relative_shift(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """r − 1 = (π − μ)/μ, exact where π ≈ μ."""
    return _expm1(log_ratio(logprobs, behavior_logprobs))


def _expm1(x: torch.Tensor) -> torch.Tensor:
    """e^x − 1. The derivative of torch.expm1 is its result + 1, which has no digits left where x ≪ 0."""
    return torch.where(x > -1, x.expm1(), x.exp() - 1)


def shift(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """π − μ, exact where π ≈ μ and in [−1, 1] whatever the ratio. Its absolute value is :func:`binary_tv`."""
    log_r = log_ratio(logprobs, behavior_logprobs)
    # π·(1 − 1/r) above and μ·(r − 1) below: r itself would be the saturated one where π ≫ μ.
    above = -at_least_float32(logprobs).exp() * (-log_r.clamp(min=0)).expm1()
    below = at_least_float32(behavior_logprobs).exp() * _expm1(log_r.clamp(max=0))
    return torch.where(log_r > 0, above, below)


def binary_tv(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """|π − μ|: total variation between Bernoulli(π) and Bernoulli(μ), in [0, 1].

    A lower bound of the total variation of the whole distributions (DPPO, arXiv:2602.04879, Eq. 13).
    """
    return shift(logprobs, behavior_logprobs).abs()


def k1(log_ratio: torch.Tensor) -> torch.Tensor:
    """−log r, the unbiased estimator of KL(μ‖π) under samples from μ."""
    return -log_ratio


def k2(log_ratio: torch.Tensor) -> torch.Tensor:
    """½ log² r."""
    return 0.5 * log_ratio.square()


def k3(log_ratio: torch.Tensor) -> torch.Tensor:
    """r − 1 − log r ≥ 0, the unbiased low-variance estimator of KL(μ‖π) under samples from μ."""
    return log_ratio.expm1() - log_ratio


def k_reverse(log_ratio: torch.Tensor) -> torch.Tensor:
    """r log r − (r − 1) ≥ 0, whose mean under samples from μ is KL(π‖μ)."""
    return log_ratio.exp() * log_ratio - log_ratio.expm1()


def binary_kl(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """KL(Bernoulli(μ)‖Bernoulli(π)) = μ log(μ/π) + (1 − μ) log((1 − μ)/(1 − π)) ≥ 0, in nats.

    Infinite where π = 1 > μ; 0 · log 0 = 0, so that μ = 1 is harmless.
    """
    pi, mu = at_least_float32(logprobs), at_least_float32(behavior_logprobs)
    # Rounding may leave a log-probability a little above 0.
    pi_rest, mu_rest = -pi.clamp(max=0).expm1(), -mu.clamp(max=0).expm1()
    rest = torch.where(mu_rest > 0, mu_rest * (mu_rest.log() - pi_rest.log()), 0.0)
    return (mu.exp() * (mu - pi) + rest).clamp(min=0)


def support_logprobs(
    logprobs: torch.Tensor, topk_logprobs: torch.Tensor, topk_is_sampled: torch.Tensor
) -> torch.Tensor:
    """``[N, K + 2]``: a distribution cut down to the sampled token, the other tokens of the top K, and the rest.

    The entry of a top-K token that is the sampled one is −inf (it is counted by itself). The rest is at least a few
    units of rounding, so that a top K that is the whole vocabulary has finite divergences.
    """
    sampled = at_least_float32(logprobs).unsqueeze(1)
    others = at_least_float32(topk_logprobs).masked_fill(topk_is_sampled, -torch.inf)
    known = torch.cat([sampled, others], dim=1)
    rest = (1 - known.exp().sum(1, keepdim=True)).clamp(min=8 * torch.finfo(known.dtype).eps)
    return torch.cat([known, rest.log()], dim=1)


def total_variation(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """``[N, S]``, ``[N, S]`` → ``[N]``: ½ Σ |π − μ|."""
    return 0.5 * (logprobs.exp() - behavior_logprobs.exp()).abs().sum(1)


def kl(logprobs: torch.Tensor, other_logprobs: torch.Tensor) -> torch.Tensor:
    """``[N, S]``, ``[N, S]`` → ``[N]``: KL of the first from the second, Σ p (log p − log q), in nats.

    Entries that are −inf in the first count 0.
    """
    absent = logprobs == -torch.inf
    difference = logprobs.masked_fill(absent, 0.0) - other_logprobs.masked_fill(absent, 0.0)
    return (logprobs.exp() * difference).sum(1)
