"""`fused_loss`: from hidden states to the loss and its gradients, without ever holding the logits.

The derivative of a loss with respect to the hidden states and the LM head needs three matrix products: the logits, and
one for each gradient. Where an objective looks at each token alone, the derivative with respect to a token's
log-probability is known as soon as that token's logits are, so that one pass over chunks of rows does all three; the
others need the log-probabilities of all tokens first, and the logits a second time.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary, ``C`` rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from drpo.aggregation import Mode, aggregate
from drpo.batch import TokenBatch
from drpo.divergence import at_least_float32
from drpo.errors import ConfigError
from drpo.kernels.logprobs import CHUNK_ROWS, check_inputs
from drpo.objectives import Objective

#: Numbers that the cache of a CPU core holds.
CACHED = 1 << 18
#: From the rows of a chunk and their log π ``[C]`` to ∂loss/∂log π ``[C]``.
Slopes = Callable[[slice, torch.Tensor], torch.Tensor]


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
    mode: Mode = "token_mean",
    denominator: float | torch.Tensor | None = None,
    horizon: int | None = None,
) -> FusedLoss:
    """What ``aggregate(objective(batch).loss, batch, …)`` is for log π = log softmax(hidden · weightᵀ / temperature).

    At most 256 rows of logits exist at a time. For a ``token_local`` objective the loss and both gradients come out of
    one pass, in three matrix products; for any other out of two, in four.

    Args:
        hidden: ``[N, H]`` float, the states that predict the targets.
        weight: ``[V, H]`` float, the LM head; finite.
        targets: ``[N]`` int64 in [0, V), the sampled tokens.
        objective: any that does not read the top K.
        behavior_logprobs, advantages, sequence_ids, proximal_logprobs, entropy: ``[N]``, as in
            :class:`drpo.TokenBatch`. They are not checked here (that would wait for the device): check each update
            once, by making a TokenBatch.
        temperature: > 0, the one the tokens were sampled at; or ``[N]``, one a token.
        mode, denominator, horizon: as in :func:`drpo.aggregate`.

    Raises:
        ConfigError: the objective reads the top K, or a setting is out of its range.
        DataError: shapes or dtypes disagree, or the objective lacks a field.
    """
    check_inputs(hidden, weight, targets, temperature)
    if objective.topk:
        raise ConfigError(f"objective {objective.name!r} reads the {objective.topk} most likely tokens of each "
                          "position; fused_loss forms only the sampled one's log-probability. Use whole logits.")
    given: dict[str, Any] = {
        "behavior_logprobs": behavior_logprobs, "advantages": advantages, "sequence_ids": sequence_ids,
        "proximal_logprobs": proximal_logprobs, "entropy": entropy,
    }
    # Only shapes are looked at: the values of log π do not matter to how tokens are weighed.
    whole = TokenBatch(torch.zeros_like(at_least_float32(behavior_logprobs)), **given, validate=False)
    shares = _shares(whole, mode, denominator, horizon)
    return FusedLoss(*_FusedLoss.apply(hidden, weight, targets, temperature, objective, whole, shares))


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
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor,
        temperature: float | torch.Tensor, objective: Objective, batch: TokenBatch, shares: torch.Tensor,
    ):  # fmt: skip
        work = _Work(hidden, weight, targets, temperature, ctx.needs_input_grad[:2])
        losses = torch.zeros_like(shares)

        def differentiate(rows: slice, logprobs: torch.Tensor) -> torch.Tensor:
            losses[rows], slopes = _differentiate(objective, batch.select(rows), logprobs, shares[rows])
            return slopes

        if not objective.token_local:
            work.run(None)
            slopes = differentiate(slice(None), work.logprobs)
            work.run(lambda rows, _: slopes[rows])
        else:
            work.run(differentiate)
        ctx.gradients = work.gradients()
        ctx.mark_non_differentiable(work.logprobs, work.entropy)
        return losses.sum(), work.logprobs, work.entropy

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor):
        if ctx.gradients is None:
            raise RuntimeError("fused_loss was differentiated before: its gradients are made once and handed over. "
                               "Call it again for another backward pass.")
        scaled = [None if gradient is None else gradient.mul_(upstream[0]) for gradient in ctx.gradients]
        ctx.gradients = None
        return *scaled, None, None, None, None, None


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


class _Work:
    """Chunks of rows, one buffer for their logits, and what is added up over them.

    With x = hidden · weightᵀ / temperature, E = exp(x − max x) and Z = Σ E, a chunk's ∂log π/∂x is onehot − E / Z.
    Whatever multiplies a row of E is applied to the narrow side of the next product instead, so that E is written once
    and read by the products alone; and Σ E x, which the entropy needs, is the row-wise product of E · weight with
    hidden.
    """

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor,
        temperature: float | torch.Tensor, needs: tuple[bool, ...],
    ):  # fmt: skip
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.hidden, self.weight, self.targets, self.wide = hidden, weight, targets, wide
        self.temperature = temperature
        count, vocabulary = len(hidden), len(weight)
        self.logprobs = hidden.new_zeros(count, dtype=wide)
        self.entropy = hidden.new_zeros(count, dtype=wide)
        self.buffer = hidden.new_empty(min(CHUNK_ROWS, count), vocabulary, dtype=wide)
        self.grad_hidden = torch.zeros_like(hidden) if needs[0] else None
        self.grad_weight = torch.zeros_like(weight, dtype=wide) if needs[1] else None

    def gradients(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """With respect to hidden and weight, in their dtypes; None where it is not needed."""
        wide = self.grad_weight
        return self.grad_hidden, None if wide is None else wide.to(self.weight.dtype)

    def chunks(self) -> Iterator[slice]:
        """Rows in chunks."""
        for start in range(0, len(self.hidden), CHUNK_ROWS):
            yield slice(start, min(start + CHUNK_ROWS, len(self.hidden)))

    def run(self, slopes_of: Slopes | None) -> None:
        """The log-probabilities of all rows; with ``slopes_of`` the entropy and both gradients as well."""
        for rows in self.chunks():
            self._chunk(rows, slopes_of)

    def _chunk(self, rows: slice, slopes_of: Slopes | None) -> None:
        hidden, targets = self.hidden[rows], self.targets[rows].unsqueeze(1)
        scale = self._scale(rows)
        x = self._logits(hidden, scale)
        at_target = x.gather(1, targets)
        exponentials, top, total = _exponentials(x)
        normaliser = top + total.log()
        self.logprobs[rows] = (at_target - normaliser).squeeze(1)
        if slopes_of is None:
            return
        narrow = exponentials if exponentials.dtype == self.weight.dtype else exponentials.to(self.weight.dtype)
        pulled = narrow @ self.weight  # [C, H]: Z · the mean row of the head under π
        mean = (pulled * hidden).sum(1, keepdim=True, dtype=self.wide) / scale / total
        self.entropy[rows] = (normaliser - mean).squeeze(1).clamp_(min=0.0)
        slopes = slopes_of(rows, self.logprobs[rows]).unsqueeze(1) / scale
        share = slopes / total
        if self.grad_hidden is not None:
            aimed = slopes * self.weight[targets.squeeze(1)]
            self.grad_hidden[rows] = aimed.sub_(share * pulled).to(self.hidden.dtype)
        if self.grad_weight is not None:
            self._add_weight_gradient(narrow, hidden, share, slopes, targets)

    def _scale(self, rows: slice) -> float | torch.Tensor:
        if isinstance(self.temperature, torch.Tensor):
            return self.temperature[rows].unsqueeze(1).to(self.wide)
        return self.temperature

    def _logits(self, hidden: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
        buffer = self.buffer[: len(hidden)]
        if hidden.dtype == self.wide:
            return torch.mm(hidden / scale, self.weight.T, out=buffer)
        # Not hidden / scale, which would round a narrow dtype once more.
        return buffer.copy_(hidden @ self.weight.T).div_(scale)

    def _add_weight_gradient(
        self, exponentials: torch.Tensor, hidden: torch.Tensor, share: torch.Tensor, slopes: torch.Tensor,
        targets: torch.Tensor,
    ) -> None:  # fmt: skip
        assert self.grad_weight is not None
        pushed = (hidden * -share).to(exponentials.dtype)
        if exponentials.dtype == self.wide:
            self.grad_weight.addmm_(exponentials.T, pushed)
        else:
            self.grad_weight += exponentials.T @ pushed
        self.grad_weight.index_add_(0, targets.squeeze(1), (hidden * slopes).to(self.wide))


def _exponentials(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """exp(x − max) in the place of ``x`` ``[C, V]``, the maximum of each row, and its sum, ``[C, 1]``."""
    # On a CPU a few rows at a time, which its cache holds over the four operations.
    step = max(1, CACHED // x.shape[1]) if x.device.type == "cpu" else max(1, len(x))
    tops, totals = [], []
    for part in x.split(step):
        top = part.amax(1, keepdim=True)
        totals.append(part.sub_(top).exp_().sum(1, keepdim=True))
        tops.append(top)
    return x, torch.cat(tops), torch.cat(totals)
