"""Ratio and divergences between the policy π and the behaviour policy μ: the only home of this maths.

Every function takes log-probabilities in nats, works in float32 at least whatever their dtype, and returns
per-token values of the same shape ``[N]``.
"""

from __future__ import annotations

import torch

#: Ratios are formed from log-ratios saturated to this many nats, so that the square of a ratio stays finite
#: in float32 (e^80 < 3.4e38). Unlike a clamp, saturation keeps a non-zero gradient. `drpo.diagnose` counts
#: the tokens it touches as ``saturated_share``.
MAX_LOG_RATIO = 40.0


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """``values`` in float32, or unchanged if they are wider than that."""
    return values if values.dtype == torch.float64 else values.float()


def log_ratio(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """log r = log π − log μ, saturated at ±MAX_LOG_RATIO in value; its gradient is 1 everywhere."""
    exact = at_least_float32(logprobs) - at_least_float32(behavior_logprobs)
    return exact + (exact.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO) - exact).detach()


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
