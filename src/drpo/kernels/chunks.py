"""Passes over hidden states in chunks of rows, so that few logits exist at a time.

With x = hidden · weightᵀ / temperature, E = exp(x − max x) and Z = Σ E, ∂log π/∂x is onehot − E / Z. What multiplies a
row of E is applied to the narrow side of the next product instead, so that E is written once and read by the products
alone; and Σ E x, which the entropy needs, is the row-wise product of E · weight with hidden.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary, ``C`` rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from drpo.kernels import triton_support
from drpo.kernels.products import wide_dtype, wide_mm
from drpo.support import Support

#: Rows of logits that exist at once.
CHUNK_ROWS = 256
#: More than that if they are no more numbers than these (16 MB of float32): a chunk costs some fifty small operations.
CHUNK_NUMBERS = 1 << 22
#: Rows of a chunk on a GPU. Beside its three products a chunk costs V × H numbers written in bfloat16 and added to the
#: float32 gradient of the weight (12 bytes each), and a pass over its logits (10 bytes each: read twice, and written
#: once in bfloat16). At H = 2,560, V = 151,936, 790 TFLOP/s and 4 TB/s that is 1.2 ms and 1.6 ms beside products of
#: 12.1 ms for 4,096 rows, but 1.2 ms and 0.1 ms beside 0.8 ms for 256. Logits and exponentials take 3.7 GB there,
#: whatever N is.
GPU_CHUNK_ROWS = 4096
#: Numbers that the cache of a CPU core holds.
CACHED = 1 << 18
#: From the rows of a chunk and their log π ``[C]`` to ∂loss/∂log π ``[C]``.
Slopes = Callable[[slice, torch.Tensor], torch.Tensor]


class Chunks:
    """Log-probabilities, entropies and gradients of all rows, added up over chunks with one buffer for their logits.

    Args:
        hidden, weight, targets, temperature, support: as in :func:`drpo.token_logprobs`, checked.
        needs: whether ``grad_hidden`` and ``grad_weight`` are wanted.
    """

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        temperature: float | torch.Tensor,
        support: Support | None,
        needs: tuple[bool, ...],
    ):
        wide = wide_dtype(hidden)
        self.hidden, self.weight, self.targets, self.wide = hidden, weight, targets, wide
        self.temperature, self.support = temperature, support
        count, vocabulary = len(hidden), len(weight)
        rows = GPU_CHUNK_ROWS if hidden.device.type == "cuda" else CHUNK_ROWS
        self.step = max(rows, CHUNK_NUMBERS // max(vocabulary, 1))
        self.logprobs = hidden.new_zeros(count, dtype=wide)
        self.entropy = hidden.new_zeros(count, dtype=wide)
        self.buffer = hidden.new_empty(min(self.step, count), vocabulary, dtype=wide)
        self.grad_hidden = torch.zeros_like(hidden) if needs[0] else None
        self.grad_weight = torch.zeros_like(weight, dtype=wide) if needs[1] else None

    def gradients(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """With respect to hidden and weight, in their dtypes; None where it is not needed."""
        wide = self.grad_weight
        return self.grad_hidden, None if wide is None else wide.to(self.weight.dtype)

    def chunks(self) -> Iterator[slice]:
        """Rows in chunks."""
        for start in range(0, len(self.hidden), self.step):
            yield slice(start, min(start + self.step, len(self.hidden)))

    def measure(self, with_entropy: bool) -> None:
        """``logprobs``, and ``entropy`` if wanted: one product a chunk."""
        for rows in self.chunks():
            x, at_target, scale = self._logits(rows)
            log_total, entropy = _measure(x, scale, self._support(rows), with_entropy)
            self.logprobs[rows] = (at_target - log_total).squeeze(1)
            if with_entropy:
                self.entropy[rows] = entropy.squeeze(1)

    def differentiate(self, slopes_of: Slopes) -> None:
        """``logprobs``, ``entropy`` and the gradients of what has the derivatives ``slopes_of`` with respect to
        ``logprobs``: three products a chunk."""
        for rows in self.chunks():
            self._differentiate(rows, slopes_of)

    def _logits(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor, float | torch.Tensor]:
        """hidden · weightᵀ ``[C, V]``, the target's x ``[C, 1]``, and the temperature."""
        hidden, scale = self.hidden[rows], self._scale(rows)
        x = wide_mm(hidden, self.weight.T, out=self.buffer[: len(hidden)])
        return x, x.gather(1, self.targets[rows].unsqueeze(1)) / scale, scale

    def _support(self, rows: slice) -> Support | None:
        """Of these rows; None where it is the whole vocabulary."""
        support = None if self.support is None else self.support[rows]
        return None if support is None or len(support.ids) == len(support) * len(self.weight) else support

    def _differentiate(self, rows: slice, slopes_of: Slopes) -> None:
        hidden, targets = self.hidden[rows], self.targets[rows].unsqueeze(1)
        x, at_target, scale = self._logits(rows)
        exponentials, top, total = _exponentials(x, scale, self._support(rows), self.weight.dtype)
        normalizer = top + total.log()
        self.logprobs[rows] = (at_target - normalizer).squeeze(1)
        pulled = wide_mm(exponentials, self.weight)  # [C, H]: Z · the mean row of the head under π
        mean = (pulled * hidden).sum(1, keepdim=True) / scale / total
        self.entropy[rows] = (normalizer - mean).squeeze(1).clamp_(min=0.0)
        slopes = slopes_of(rows, self.logprobs[rows]).unsqueeze(1) / scale
        share = slopes / total
        if self.grad_hidden is not None:
            aimed = slopes * self.weight[targets.squeeze(1)]
            self.grad_hidden[rows] = aimed.sub_(share * pulled).to(self.hidden.dtype)
        if self.grad_weight is not None:
            self._add_weight_gradient(exponentials, hidden, share, slopes, targets)

    def _scale(self, rows: slice) -> float | torch.Tensor:
        if isinstance(self.temperature, torch.Tensor):
            return self.temperature[rows].unsqueeze(1).to(self.wide)
        return self.temperature

    def _add_weight_gradient(
        self,
        exponentials: torch.Tensor,
        hidden: torch.Tensor,
        share: torch.Tensor,
        slopes: torch.Tensor,
        targets: torch.Tensor,
    ) -> None:
        assert self.grad_weight is not None
        pushed = (hidden * -share).to(exponentials.dtype)
        if exponentials.dtype == self.wide:
            self.grad_weight.addmm_(exponentials.T, pushed)
        else:
            # Rounded as the gradient will be; the other products make nats, which should not be.
            self.grad_weight += exponentials.T @ pushed
        self.grad_weight.index_add_(0, targets.squeeze(1), (hidden * slopes).to(self.wide))


def _measure(
    x: torch.Tensor, scale: float | torch.Tensor, support: Support | None, with_entropy: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """log Σ exp(x / scale) of each row, and the entropy if wanted (else 0), ``[C, 1]``; ``x`` is overwritten."""
    if support is not None:
        top, total, shifted = _exponentials_inside(x, scale, support)
        log_total = total.log()
        if not with_entropy:
            return top + log_total, torch.zeros_like(top)
        moment = support.put_(x, shifted.exp().mul_(shifted.clamp_(min=-1e30))).sum(1, keepdim=True)
        return top + log_total, (log_total - moment / total).clamp_(min=0.0)
    log_totals, entropies = [], []
    for part in _parts(x, scale):
        top = part.amax(1, keepdim=True)
        exponentials = part.sub_(top).exp()
        total = exponentials.sum(1, keepdim=True)
        log_totals.append(top + total.log())
        if with_entropy:
            # 0 · log 0 = 0, by keeping the logarithm finite.
            moment = exponentials.mul_(part.clamp_(min=-1e30)).sum(1, keepdim=True)
            entropies.append((total.log() - moment / total).clamp_(min=0.0))
    log_total = torch.cat(log_totals)
    return log_total, torch.cat(entropies) if with_entropy else torch.zeros_like(log_total)


def _parts(x: torch.Tensor, scale: float | torch.Tensor) -> Iterator[torch.Tensor]:
    """``x`` ``[C, V]`` divided by the temperature in its place; on a CPU a few rows at a time, which its cache holds
    over the operations to come."""
    step = max(1, CACHED // x.shape[1]) if x.device.type == "cpu" else max(1, len(x))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        if isinstance(scale, torch.Tensor):
            part.div_(scale[start : start + step])
        elif scale != 1.0:
            part.div_(scale)
        yield part


def _exponentials(
    x: torch.Tensor, scale: float | torch.Tensor, support: Support | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """exp(x / scale − max) in ``dtype``, and of each row of x / scale the maximum and that sum, ``[C, 1]``.

    ``x`` ``[C, V]`` is overwritten; ``scale`` is a number or ``[C, 1]``. With a support the maximum is over its tokens,
    and the exponentials of the others are 0.
    """
    if triton_support.compiles_for(x.device):
        from drpo.kernels import triton_backend

        return triton_backend.exponentials(x if support is None else support.restrict_(x), scale, dtype)
    if support is not None:
        top, total, _ = _exponentials_inside(x, scale, support)
        return x.to(dtype), top, total
    tops, totals = [], []
    for part in _parts(x, scale):
        top = part.amax(1, keepdim=True)
        totals.append(part.sub_(top).exp_().sum(1, keepdim=True))
        tops.append(top)
    return x.to(dtype), torch.cat(tops), torch.cat(totals)


def _exponentials_inside(
    x: torch.Tensor, scale: float | torch.Tensor, support: Support
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Write exp(x / scale − max) of the tokens of the support into ``x`` ``[C, V]``, and 0 elsewhere.

    Only these are exponentiated: on a CPU the exponential of −inf takes seven times that of a number.

    Returns:
        Of each row of x / scale inside the maximum and the sum of exponentials, ``[C, 1]``, and x / scale − max of the
        tokens inside, ``[M]``.
    """
    sizes = support.sizes.to(x.device)
    shifted = support.take(x)
    if isinstance(scale, torch.Tensor):
        shifted.div_(scale.squeeze(1).repeat_interleave(sizes, output_size=len(shifted)))
    elif scale != 1.0:
        shifted.div_(scale)
    top = torch.segment_reduce(shifted, "max", lengths=sizes, unsafe=True)  # sizes are right: no look at them
    shifted.sub_(top.repeat_interleave(sizes, output_size=len(shifted)))
    total = support.put_(x.zero_(), shifted.exp()).sum(1, keepdim=True)
    return top.unsqueeze(1), total, shifted
