"""What the plug-ins share: an objective that the host can feed, its loss on padded tensors, and its metrics.

Every host hands over ``[B, T]`` tensors (or rows of them) and has its own way of summing up. Between the two stands
the same packed :class:`drpo.TokenBatch` that everything else here uses, so that what the padding holds cannot matter.

Shapes: ``B`` sequences, ``T`` positions, ``N`` kept tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from drpo.batch import OPTIONAL_FIELDS, TokenBatch
from drpo.diagnostics import DEFAULT_DELTA, diagnose
from drpo.errors import ConfigError, DataError, MismatchError
from drpo.metrics import Maximum, Metric, Minimum
from drpo.objectives import Objective, make_objective

#: Share of tokens without a log μ (an engine may report NaN or null for a token) beyond which a run stops.
LEFT_OUT_LIMIT = 0.05
#: What each metric of a plug-in starts with in the host's log.
PREFIX = "drpo/"


def make_host_objective(
    host: str,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    gives: Collection[str] = (),
    sums_scaled_advantages: bool = False,
) -> Objective:
    """The objective ``name``, if ``host`` can compute it.

    Args:
        host: its name, for messages.
        name: a registered objective.
        parameters: keyword arguments of :func:`drpo.make_objective`; ``anchor`` and ``modifiers`` may be among them.
        gives: the optional fields of :class:`drpo.TokenBatch` that the host hands over.
        sums_scaled_advantages: the host divides the advantages by the denominator instead of the loss, which only
            suits an objective that is homogeneous in the advantage.

    Raises:
        ConfigError: an unknown name or parameter, or an objective that needs what the host does not hand over.
    """
    objective = make_objective(name, **dict(parameters or {}))
    for field in objective.needs:
        if field not in gives:
            raise ConfigError(
                f"objective {name!r} needs {field} ({OPTIONAL_FIELDS[field]}), which {host} does not "
                "hand to a loss. Use another objective, one without the modifiers that need it, or "
                "`drpo train`."
            )
    if sums_scaled_advantages and not objective.homogeneous:
        raise ConfigError(
            f"objective {name!r} is not homogeneous in the advantage, and {host} divides the advantages, "
            "not the loss, by the number of tokens or sequences: the two parts of the objective would be "
            "weighed differently at every batch size. Use another objective, or advantage_weighted=true "
            "where it has that parameter."
        )
    return objective


def require_whole_update(objective: Objective, whole: bool, host: str, fix: str) -> None:
    """Refuse an objective that decides over a whole optimizer step if the loss sees only a part of it.

    Raises:
        ConfigError: it does not; ``fix`` says what makes one micro-batch of the step.
    """
    if not (whole or objective.sequence_local):
        raise ConfigError(
            f"objective {objective.name!r} (or one of its modifiers) decides over all tokens of an "
            f"optimizer step, and {host} computes this loss on a part of them: the result would depend "
            f"on the micro-batch size. {fix}"
        )


def padded_loss(
    objective: Objective,
    logprobs: torch.Tensor,
    behavior_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    proximal_logprobs: torch.Tensor | None = None,
    entropy: torch.Tensor | None = None,
    topk_logprobs: torch.Tensor | None = None,
    topk_behavior_logprobs: torch.Tensor | None = None,
) -> tuple[torch.Tensor, TokenBatch]:
    """The per-token loss as ``[B, T]``, exactly 0 where ``mask`` is false, and the batch it was computed on.

    Args:
        objective: the per-token loss.
        logprobs: ``[B, T]``, as in :class:`drpo.TokenBatch`, like the others.
        behavior_logprobs: ``[B, T]``.
        advantages: ``[B]`` or ``[B, T]``.
        mask: ``[B, T]``; non-zero keeps a token. What the other positions hold does not matter.
        proximal_logprobs: ``[B, T]``, for objectives that need it.
        entropy: ``[B, T]``, for objectives that need it.
        topk_logprobs: ``[B, T, K]``, for objectives that need it.
        topk_behavior_logprobs: ``[B, T, K]``, likewise.

    Raises:
        DataError: a kept log-probability is not finite or positive, or shapes disagree.
    """
    batch = TokenBatch.from_padded(
        logprobs,
        behavior_logprobs,
        advantages,
        mask,
        proximal_logprobs=proximal_logprobs,
        entropy=entropy,
        topk_logprobs=topk_logprobs,
        topk_behavior_logprobs=topk_behavior_logprobs,
    )
    return scatter_loss(objective, batch, mask.bool()), batch


def scatter_loss(objective: Objective, batch: TokenBatch, kept: torch.Tensor) -> torch.Tensor:
    """The per-token loss of ``batch`` where ``kept`` (bool, any shape) is true, in its order, and exactly 0 elsewhere.

    It has a graph even where the objective masks every token: a data-parallel host needs one on each rank.
    """
    loss = objective(batch).loss + 0.0 * batch.logprobs
    return torch.zeros(kept.shape, dtype=loss.dtype, device=loss.device).masked_scatter(kept, loss)


def check_first_mismatch(host: str, batch: TokenBatch, limit: float, setting: str) -> tuple[float, float]:
    """Mean and maximum of \\|log π − log μ\\|, nats, on the first micro-batch, whose weights are those that sampled.

    Args:
        host: its name, for the message.
        batch: the first micro-batch, with at least one token.
        limit: of the mean, nats.
        setting: what the user sets the limit with.

    Raises:
        MismatchError: the mean exceeds ``limit``.
    """
    distance = (batch.logprobs.detach().double() - batch.behavior_logprobs.double()).abs()
    mean, largest = float(distance.mean()), float(distance.max())
    if not mean <= limit:
        raise MismatchError(
            f"{host}: in the first micro-batch, before any update, |log π − log μ| is {mean:.3g} nats on average (at "
            f"most {largest:.3g}, {len(batch)} tokens), above mismatch_limit={limit}. Likely causes: the rollout "
            "engine applies another temperature, penalty or cut (top-p, top-k, min-p) than the trainer, holds other "
            "weights (an update that did not arrive, quantization), or routes experts differently. Raise "
            f"{setting} only if you expect this much."
        )
    return mean, largest


def leave_out(mask: torch.Tensor, behavior_logprobs: torch.Tensor, host: str) -> tuple[torch.Tensor, float]:
    """``mask`` without the tokens that have no log μ (NaN or infinite), and their share of the kept tokens.

    Such a token is as if ``mask`` had never kept it. A denominator that the host counted beforehand still holds it.

    Args:
        mask: ``[B, T]``; non-zero keeps a token.
        behavior_logprobs: ``[B, T]``.
        host: its name, for the message.

    Raises:
        DataError: they are more than 5 % of the kept tokens; a single one is always left out.
    """
    kept = mask.bool()
    if behavior_logprobs.shape != kept.shape:
        raise DataError(
            f"{host}: behavior_logprobs must be {list(kept.shape)} as the mask is, got {list(behavior_logprobs.shape)}"
        )
    found = kept & behavior_logprobs.isfinite()
    left, total = torch.stack([found.sum(), kept.sum()]).tolist()
    check_left_out(total - left, total, host)
    return found, (total - left) / max(total, 1)


def check_left_out(missing: int, total: int, host: str) -> None:
    """Refuse to go on where too many of ``total`` tokens have no log μ.

    Raises:
        DataError: as :func:`leave_out`.
    """
    if missing > max(1, LEFT_OUT_LIMIT * total):
        raise DataError(
            f"{host}: {missing} of {total} tokens have no log μ (behavior_logprobs is NaN, infinite or "
            f"null), above the {LEFT_OUT_LIMIT:.0%} that are left out and counted. Fix the rollout engine: "
            "NaN comes from logits that overflow (fp16, fp8), null from tokens that it does not report."
        )


def region(objective: Objective) -> float:
    """The |π − μ| that diagnostics count against: the objective's own bound, or 0.15."""
    return objective.shift_bound or DEFAULT_DELTA


def measurements(batch: TokenBatch, objective: Objective) -> dict[str, Metric]:
    """``drpo/…`` → what :func:`drpo.diagnose` measured, for a host that can merge sums and counts itself."""
    return {PREFIX + name: metric for name, metric in diagnose(batch, region(objective), objective).items()}


def sums_and_counts(metrics: Mapping[str, Metric], device: torch.device) -> torch.Tensor:
    """``[M, 2]`` float64 on ``device``: what each metric is made of, in one tensor to move or gather at once."""
    return torch.stack(
        [
            torch.stack(
                [torch.as_tensor(part, dtype=torch.float64, device=device) for part in (metric.sum, metric.count)]
            )
            for metric in metrics.values()
        ]
    )


def loss_metrics(
    batch: TokenBatch, objective: Objective, *, extremes: bool = False, same_names: bool = False
) -> dict[str, float]:
    """:func:`measurements` as floats (one device synchronization), for a host that averages what it is given.

    Args:
        batch: the tokens of the loss.
        objective: whose boundary the shares count against.
        extremes: report minima and maxima as well, to a host that does not average those.
        same_names: the same names whatever the batch holds, for a host that breaks on a missing one: a share within
            a part of the tokens becomes a share of all of them (0 in an empty batch), and what has no such form
            (``weight…``, ``…_mass``) is left out.
    """
    kept = {
        name: metric
        for name, metric in measurements(batch, objective).items()
        if extremes or not isinstance(metric, Maximum | Minimum)
    }
    if same_names:
        kept = {
            name: Metric(metric.sum, max(len(batch), 1))
            for name, metric in kept.items()
            if not name.startswith(f"{PREFIX}weight") and not name.endswith("_mass")
        }
    table = sums_and_counts(kept, batch.logprobs.device).tolist()
    # A mean over no tokens has no value, and a host's own average could not leave it out.
    return {
        name: total if isinstance(metric, Maximum | Minimum) else total / count
        for (name, metric), (total, count) in zip(kept.items(), table, strict=True)
        if count
    }
