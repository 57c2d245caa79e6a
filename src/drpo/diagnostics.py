"""What a trust region does to a batch."""

from __future__ import annotations

import torch

from drpo.batch import TokenBatch
from drpo.divergence import MAX_LOG_RATIO, at_least_float32, k3, log_ratio, shift
from drpo.errors import ConfigError
from drpo.metrics import Maximum, Metric, Minimum
from drpo.objectives.base import Objective, gradient_weight, harmful, is_positive


def diagnose(batch: TokenBatch, delta: float = 0.15, objective: Objective | None = None) -> dict[str, Metric]:
    """Measure a batch against the region |π − μ| ≤ ``delta``; every value merges exactly by ``+``.

    Args:
        batch: ``N`` tokens.
        delta: bound on |π − μ|, a probability.
        objective: whose gradient weights to report as well; None reports none.

    Returns:
        name → :class:`Metric` (a mean over tokens unless the name says ``_min`` or ``_max``):
        ``ratio``, ``ratio_min``, ``ratio_max``; ``shift`` (mean \\|π − μ\\|), ``shift_max``; ``beyond_delta``, and
        by sign of the advantage ``beyond_delta_positive``, ``beyond_delta_negative``; ``harmful_share``
        (Â(r − 1) > 0); ``mismatch`` (mean \\|log π − log μ\\|, nats), ``mismatch_max``; ``k3_kl`` (nats);
        ``rare_share`` (μ ≤ 0.01); ``saturated_share`` (log-ratios that the guard touched); with an objective
        ``weight``, ``corrective_share`` (w < 0) and ``dropped_share`` (w = 0), over tokens with Â ≠ 0.

    Raises:
        ConfigError: delta is not a positive number.
    """
    if not is_positive(delta):
        raise ConfigError(f"delta must be a finite probability > 0, got {delta!r}")
    logprobs, behavior = batch.logprobs.detach(), batch.behavior_logprobs
    exact = at_least_float32(logprobs) - at_least_float32(behavior)
    log_r = log_ratio(logprobs, behavior)
    r = log_r.exp()
    distance = shift(logprobs, behavior).abs()
    beyond = distance > delta
    up, down = batch.advantages > 0, batch.advantages < 0
    found: dict[str, Metric] = {
        "ratio": Metric.of(r),
        "ratio_min": Minimum.of(r),
        "ratio_max": Maximum.of(r),
        "shift": Metric.of(distance),
        "shift_max": Maximum.of(distance),
        "beyond_delta": Metric.of(beyond),
        "beyond_delta_positive": Metric.of(beyond, up),
        "beyond_delta_negative": Metric.of(beyond, down),
        "harmful_share": Metric.of(harmful(batch.advantages, log_r)),
        "mismatch": Metric.of(exact.abs()),
        "mismatch_max": Maximum.of(exact.abs()),
        "k3_kl": Metric.of(k3(log_r)),
        "rare_share": Metric.of(at_least_float32(behavior).exp() <= 0.01),
        "saturated_share": Metric.of(exact.abs() > MAX_LOG_RATIO),
    }
    if objective is not None:
        weight = gradient_weight(objective, batch)
        moves = batch.advantages != 0
        found["weight"] = Metric.of(weight, moves)
        found["corrective_share"] = Metric.of(weight < 0, moves)
        found["dropped_share"] = Metric.of(weight == 0, moves)
    return found


def quantile(values: torch.Tensor, q: float) -> float:
    """The ``q`` quantile of ``values`` ``[N]``, of any length; NaN when empty.

    Quantiles do not merge: take them over the tokens of a whole update.
    """
    if not values.numel():
        return float("nan")
    ordered = values.detach().flatten().sort().values.double()
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (position - low))
