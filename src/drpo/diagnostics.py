"""What a trust region does to a batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_positive
from drpo.divergence import MAX_LOG_RATIO, at_least_float32, k3, log_ratio, ratio, shift
from drpo.errors import ConfigError
from drpo.metrics import Maximum, Metric, Minimum, Parts, settle
from drpo.objectives.base import Objective, gradient_weight, is_diverging, require_batch

#: The |π − μ| that shares count against where no objective or user gives one.
DEFAULT_DELTA = 0.15


def diagnose(batch: TokenBatch, delta: float = DEFAULT_DELTA, objective: Objective | None = None) -> dict[str, Metric]:
    """Measure a batch against the region |π − μ| ≤ ``delta``; every value merges exactly by ``+``.

    Waits for the device once. A :class:`Metric` is a float (``json.dumps(drpo.diagnose(batch))`` works), and NaN where
    it is a mean over no tokens.

    Args:
        batch: ``N`` tokens.
        delta: bound on |π − μ|, a probability.
        objective: whose gradient weights to report as well; None reports none.

    Returns:
        name → :class:`Metric` (a mean over tokens unless the name says ``_min``, ``_max`` or ``_mass``):
        ``ratio``, ``ratio_min``, ``ratio_max``; ``shift`` (mean \\|π − μ\\|), ``shift_max``; ``beyond_delta``
        (occupancy: the share outside the region); ``diverging_share`` (Â(r − 1) > 0); ``mismatch`` (mean
        \\|log π − log μ\\|, nats), ``mismatch_max``; ``k3_kl`` (nats); ``rare_share`` (μ ≤ 0.01);
        ``saturated_share`` (log-ratios that the guard touched). With an objective, over tokens with Â ≠ 0:
        ``weight``; ``corrective_share`` (w < 0) and ``masked_share`` (w = 0); ``corrective_mass`` and
        ``masked_mass``, their share of the surrogate's gradient Σ \\|Â r\\|.

        ``_positive`` and ``_negative`` restrict ``beyond_delta``, ``diverging_share``, ``corrective_share`` and
        ``masked_share`` to one sign of the advantage; ``_diverging`` and ``_converging`` restrict ``beyond_delta``
        and ``weight`` to one direction.

    Raises:
        ConfigError: delta is not a positive number, or ``objective`` is no objective. DataError: ``batch`` is no
            TokenBatch, or lacks a field that the objective needs.
    """
    require_batch(batch)
    if not is_positive(delta):
        raise ConfigError(f"delta must be a finite probability > 0, got {delta!r}")
    logprobs, behavior = batch.logprobs.detach(), batch.behavior_logprobs
    exact = at_least_float32(logprobs) - at_least_float32(behavior)
    log_r = log_ratio(logprobs, behavior)
    r = log_r.exp()
    distance = shift(logprobs, behavior).abs()
    beyond = distance > delta
    diverging, converging = is_diverging(batch.advantages, log_r), is_diverging(-batch.advantages, log_r)
    found: dict[str, Parts] = {
        "ratio": Metric.parts(r),
        "ratio_min": Minimum.parts(r),
        "ratio_max": Maximum.parts(r),
        "shift": Metric.parts(distance),
        "shift_max": Maximum.parts(distance),
        "beyond_delta": Metric.parts(beyond),
        "beyond_delta_diverging": Metric.parts(beyond, diverging),
        "beyond_delta_converging": Metric.parts(beyond, converging),
        **_by_sign("beyond_delta", beyond, batch),
        "diverging_share": Metric.parts(diverging),
        **_by_sign("diverging_share", diverging, batch),
        "mismatch": Metric.parts(exact.abs()),
        "mismatch_max": Maximum.parts(exact.abs()),
        "k3_kl": Metric.parts(k3(log_r)),
        "rare_share": Metric.parts(at_least_float32(behavior).exp() <= 0.01),
        "saturated_share": Metric.parts(exact.abs() > MAX_LOG_RATIO),
    }
    if objective is not None:
        found |= _weight_parts(gradient_weight(objective, batch), batch)
    return settle(found)


def diagnose_weight(weight: torch.Tensor, batch: TokenBatch) -> dict[str, Metric]:
    """What :func:`diagnose` reports of an objective, from its gradient weights ``[N]``."""
    return settle(_weight_parts(weight, batch))


def _weight_parts(weight: torch.Tensor, batch: TokenBatch) -> dict[str, Parts]:
    log_r = log_ratio(batch.logprobs.detach(), batch.behavior_logprobs)
    return {
        "weight": Metric.parts(weight, batch.advantages != 0),
        "weight_diverging": Metric.parts(weight, is_diverging(batch.advantages, log_r)),
        "weight_converging": Metric.parts(weight, is_diverging(-batch.advantages, log_r)),
        **_verdict(weight, batch.advantages != 0, _surrogate_pull(batch)),
        **_by_sign("corrective_share", weight < 0, batch),
        **_by_sign("masked_share", weight == 0, batch),
    }


def verdict(weight: torch.Tensor, batch: TokenBatch) -> dict[str, Metric]:
    """What gradient weights ``[N]`` do to a batch: corrective and masked shares of tokens and of gradient mass."""
    return settle(_verdict(weight, batch.advantages != 0, _surrogate_pull(batch)))


def _surrogate_pull(batch: TokenBatch) -> torch.Tensor:
    """``[N]`` float64: |Â r|, how strongly the plain surrogate moves each token."""
    pull = at_least_float32(batch.advantages) * ratio(batch.logprobs.detach(), batch.behavior_logprobs)
    return pull.abs().double()


def _verdict(weight: torch.Tensor, moves: torch.Tensor, pull: torch.Tensor) -> dict[str, Parts]:
    return {
        "corrective_share": Metric.parts(weight < 0, moves),
        "masked_share": Metric.parts(weight == 0, moves),
        "corrective_mass": Metric.share_parts(pull, weight < 0),
        "masked_mass": Metric.share_parts(pull, weight == 0),
    }


def verdicts(batch: TokenBatch, objectives: Mapping[str, Objective]) -> dict[str, dict[str, Metric]]:
    """What each of ``objectives`` (label → objective) would do to the same batch: label → :func:`verdict`.

    Raises:
        DataError: the batch lacks a field that one of them needs.
    """
    moves, pull = batch.advantages != 0, _surrogate_pull(batch)
    found = settle(
        {
            (label, name): parts
            for label, objective in objectives.items()
            for name, parts in _verdict(gradient_weight(objective, batch), moves, pull).items()
        }
    )
    by_label: dict[str, dict[str, Metric]] = {label: {} for label in objectives}
    for (label, name), metric in found.items():
        by_label[label][name] = metric
    return by_label


def _by_sign(name: str, values: torch.Tensor, batch: TokenBatch) -> dict[str, Parts]:
    return {
        f"{name}_positive": Metric.parts(values, batch.advantages > 0),
        f"{name}_negative": Metric.parts(values, batch.advantages < 0),
    }


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
