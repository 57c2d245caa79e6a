"""`fused_loss`: from hidden states to the loss and its gradients, without ever holding the logits.

The derivative of a loss with respect to the hidden states and the LM head needs three matrix products: the logits, and
one for each gradient. Where an objective looks at each token alone, the derivative with respect to a token's
log-probability is known as soon as that token's logits are, so that one pass over chunks of rows does all three; the
others need the log-probabilities of all tokens first, and the logits a second time.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary, ``C`` rows of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from drpo.aggregation import Mode, aggregate
from drpo.batch import TokenBatch
from drpo.checks import as_floats
from drpo.divergence import at_least_float32
from drpo.errors import ConfigError
from drpo.kernels.chunks import Chunks
from drpo.kernels.logprobs import check_inputs
from drpo.objectives.base import Objective, require_objective
from drpo.support import Support


@dataclass(frozen=True, slots=True)
class FusedLoss:
    """``loss``, a scalar to differentiate once; ``logprobs`` and ``entropy`` ``[N]`` in nats, constants."""

    loss: torch.Tensor
    logprobs: torch.Tensor
    entropy: torch.Tensor


def fused_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    objective: Objective,
    *,
    behavior_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    sequence_ids: torch.Tensor | None = None,
    proximal_logprobs: torch.Tensor | None = None,
    entropy: torch.Tensor | None = None,
    temperature: float | torch.Tensor = 1.0,
    support: Support | None = None,
    mode: Mode = "token_mean",
    denominator: float | torch.Tensor | None = None,
    horizon: int | None = None,
) -> FusedLoss:
    """What ``aggregate(objective(batch).loss, batch, …)`` is for log π = log softmax(hidden · weightᵀ / temperature).

    At most 256 rows of logits exist at a time (4,096 on a GPU; more where that is below 16 MB), in float32 at least.
    For a ``token_local`` objective
    the loss and both gradients come out of one pass, in three matrix products; for any other out of two, in four.

    Args:
        hidden: ``[N, H]`` float, the states that predict the targets.
        weight: ``[V, H]`` float, the LM head; finite.
        targets: ``[N]`` int64 in [0, V), the sampled tokens; checked as in :func:`drpo.token_logprobs`.
        objective: any that does not read the top K.
        behavior_logprobs: ``[N]``, as in :class:`drpo.TokenBatch`. Values are not checked here (that would wait for
            the device): check each update once, by making a TokenBatch. The same holds for the next four.
        advantages: ``[N]``.
        sequence_ids: ``[N]`` int64; None: one sequence.
        proximal_logprobs: ``[N]``, for objectives that need it.
        entropy: ``[N]``, for objectives that need it.
        temperature: > 0, the one the tokens were sampled at; or ``[N]``, one a token.
        support: as in :func:`drpo.token_logprobs`: log π is renormalized over it.
        mode: as in :func:`drpo.aggregate`, like the next two.
        denominator: tokens or sequences of the whole optimizer step.
        horizon: tokens, for ``sequence_sum``.

    Returns:
        :class:`FusedLoss`: ``loss``, the scalar to differentiate, once; ``logprobs`` and ``entropy`` ``[N]`` in nats,
        float32 at least. These two are constants: an entropy bonus or a KL penalty built from them has no gradient.
        Where one is needed, take :func:`drpo.token_logprobs` (log π with its gradient) or whole logits (the entropy's).

    Raises:
        ConfigError: ``objective`` is no objective or reads the top K, or a setting is out of its range.
        DataError: shapes or dtypes disagree, a target is outside [0, V) or its support, or the objective lacks a field.
    """
    require_objective(objective)
    check_inputs(hidden, weight, targets, temperature, support)
    if objective.topk:
        raise ConfigError(
            f"objective {objective.name!r} reads the {objective.topk} most likely tokens of each "
            "position; fused_loss forms only the sampled one's log-probability. Use whole logits."
        )
    given: dict[str, Any] = {
        "behavior_logprobs": behavior_logprobs,
        "advantages": advantages,
        "sequence_ids": sequence_ids,
        "proximal_logprobs": proximal_logprobs,
        "entropy": entropy,
    }
    # Only shapes are looked at: the values of log π do not matter to how tokens are weighed.
    given = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    like = as_floats("behavior_logprobs", given["behavior_logprobs"], hidden.device)
    whole = TokenBatch(at_least_float32(like.new_zeros(len(hidden))), **given, validate=False)
    shares = _shares(whole, mode, denominator, horizon)
    if not torch.is_grad_enabled():  # else the weight's gradient would be made all the same
        hidden, weight = hidden.detach(), weight.detach()
    return FusedLoss(*_FusedLoss.apply(hidden, weight, targets, temperature, support, objective, whole, shares))


def _shares(batch: TokenBatch, mode: Mode, denominator: Any, horizon: int | None) -> torch.Tensor:
    """``[N]``: what each token's loss counts for in the aggregate, which is linear in them."""
    values = torch.zeros_like(batch.logprobs, requires_grad=True)
    with torch.enable_grad():
        total = aggregate(values, batch, mode, denominator, horizon)
        (shares,) = torch.autograd.grad(total, values)
    return shares


class _FusedLoss(torch.autograd.Function):
    """The gradients are made on the way forward, scaled and handed over on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        temperature: float | torch.Tensor,
        support: Support | None,
        objective: Objective,
        batch: TokenBatch,
        shares: torch.Tensor,
    ):
        work = Chunks(hidden, weight, targets, temperature, support, ctx.needs_input_grad[:2])
        losses = torch.zeros_like(shares)

        def differentiate(rows: slice, logprobs: torch.Tensor) -> torch.Tensor:
            losses[rows], slopes = _differentiate(objective, batch.select(rows), logprobs, shares[rows])
            return slopes

        if not objective.token_local:
            work.measure(with_entropy=False)
            slopes = differentiate(slice(None), work.logprobs)
            work.differentiate(lambda rows, _: slopes[rows])
        else:
            work.differentiate(differentiate)
        ctx.gradients = work.gradients()
        ctx.mark_non_differentiable(work.logprobs, work.entropy)
        return losses.sum(), work.logprobs, work.entropy

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor):
        if ctx.gradients is None:
            raise RuntimeError(
                "fused_loss was differentiated before: its gradients are made once and handed over. "
                "Call it again for another backward pass."
            )
        scaled = [None if gradient is None else gradient.mul_(upstream[0]) for gradient in ctx.gradients]
        ctx.gradients = None
        return *scaled, None, None, None, None, None, None


def _differentiate(
    objective: Objective, batch: TokenBatch, logprobs: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``[N]`` each: what every token adds to the aggregate, and its derivative with respect to log π."""
    leaf = logprobs.detach().requires_grad_(True)
    with torch.enable_grad():
        # 0 · leaf: an objective that drops every token has no graph.
        values = objective(batch.with_logprobs(leaf)).loss * shares + 0.0 * leaf
        (slopes,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), slopes
