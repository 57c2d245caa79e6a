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


def shift(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """π − μ as μ·expm1(log r), exact where π ≈ μ. Its absolute value is the binary TV (:func:`binary_tv`)."""
    behavior = at_least_float32(behavior_logprobs).exp()
    return behavior * log_ratio(logprobs, behavior_logprobs).expm1()


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
