"""The packed token batch that every objective takes.

Shapes: ``N`` kept response tokens, ``B`` sequences, ``T`` positions, ``K`` most likely tokens of the vocabulary.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, fields, replace
from typing import Any

import torch

from drpo.checks import as_floats, as_tensor
from drpo.errors import DataError

#: Log-probabilities above zero by no more than this are rounding; beyond it they are an error.
POSITIVE_TOLERANCE = 1e-4
#: Optional field → what it must hold, in the words of an error message.
OPTIONAL_FIELDS = {
    "proximal_logprobs": "[N], log π_old recomputed by the trainer at the weights that sampled",
    "entropy": "[N], nats, as drpo.token_logprobs returns it",
    "topk_logprobs": "[N, K], log π of the K tokens that were most likely under μ",
    "topk_behavior_logprobs": "[N, K], log μ of the K tokens that were most likely under μ",
    "topk_is_sampled": "[N, K] bool, which of these K tokens is the sampled one, if any",
}


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """One entry per *kept* response token; no padding.

    NumPy arrays and lists of numbers are converted to tensors on the device of ``logprobs``.

    Args:
        logprobs: ``[N]`` float, log π(y_t|s_t) in nats; carries the gradient.
        behavior_logprobs: ``[N]`` float, log μ(y_t|s_t) in nats from the rollout engine, at the same
            temperature. A constant.
        advantages: ``[N]`` float.
        sequence_ids: ``[N]`` int64, non-decreasing; None means one sequence.
        proximal_logprobs: ``[N]`` float, log π_old recomputed by the trainer at the weights that sampled;
            only decoupled objectives use it.
        entropy: ``[N]`` float, nats; a constant.
        topk_logprobs, topk_behavior_logprobs: ``[N, K]`` float, log π (with its gradient) and log μ of the K tokens
            that were most likely under μ, most likely first.
        topk_is_sampled: ``[N, K]`` bool, true where such a token is the sampled one; a row without any says that the
            sampled token is not among the K.
        validate: check values as well as shapes (one device synchronization). A training loop that checks
            each update once may pass False for its micro-batches.

    Raises:
        DataError: shapes, dtypes or devices disagree, values are not finite, log-probabilities are positive beyond
            rounding (1e-4), sequence ids decrease, or π and μ are swapped (μ carries a gradient and π none).
    """

    logprobs: torch.Tensor
    behavior_logprobs: torch.Tensor
    advantages: torch.Tensor
    sequence_ids: torch.Tensor | None = None
    proximal_logprobs: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    topk_logprobs: torch.Tensor | None = None
    topk_behavior_logprobs: torch.Tensor | None = None
    topk_is_sampled: torch.Tensor | None = None
    validate: InitVar[bool] = True

    def __post_init__(self, validate: bool) -> None:
        _convert(self)
        _check_shapes(self)
        _check_gradients(self)
        for name in ("behavior_logprobs", "advantages", "proximal_logprobs", "entropy", "topk_behavior_logprobs"):
            value = getattr(self, name)
            if value is not None and value.requires_grad:
                object.__setattr__(self, name, value.detach())
        if validate:
            _check_values(self)

    def __len__(self) -> int:
        """The number of tokens, N."""
        return self.logprobs.shape[0]

    @property
    def num_sequences(self) -> int:
        """The number of sequences that have at least one token here (synchronizes the device)."""
        if len(self) == 0:
            return 0
        if self.sequence_ids is None:
            return 1
        return int((self.sequence_ids.diff() != 0).sum()) + 1

    def sequence_index(self) -> torch.Tensor:
        """``[N]`` int64: the position of each token's sequence in this batch, 0, 1, … without holes."""
        if self.sequence_ids is None:
            return torch.zeros(len(self), dtype=torch.int64, device=self.logprobs.device)
        steps = torch.zeros_like(self.sequence_ids)
        steps[1:] = (self.sequence_ids.diff() != 0).to(steps.dtype)
        return steps.cumsum(0)

    def select(self, keep: torch.Tensor | slice) -> TokenBatch:
        """The batch of the tokens where the boolean (or index) tensor, or the slice, ``keep`` says so."""
        kept = {f.name: value[keep] for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return TokenBatch(**kept, validate=False)

    def with_logprobs(self, logprobs: torch.Tensor) -> TokenBatch:
        """The same batch under another policy (``[N]``)."""
        return replace(self, logprobs=logprobs, validate=False)

    @classmethod
    def from_padded(
        cls,
        logprobs: torch.Tensor,
        behavior_logprobs: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        proximal_logprobs: torch.Tensor | None = None,
        entropy: torch.Tensor | None = None,
        topk_logprobs: torch.Tensor | None = None,
        topk_behavior_logprobs: torch.Tensor | None = None,
        topk_is_sampled: torch.Tensor | None = None,
        validate: bool = True,
    ) -> TokenBatch:
        """Pack ``[B, T]`` tensors, keeping the positions where ``mask`` is true.

        Args:
            logprobs: ``[B, T]``. Values at dropped positions, NaN included, reach neither loss nor gradient; this
                holds for every argument.
            behavior_logprobs: ``[B, T]``.
            advantages: ``[B]`` (one per response) or ``[B, T]``.
            mask: ``[B, T]`` bool, or numbers of which non-zero means keep.
            proximal_logprobs: ``[B, T]``.
            entropy: ``[B, T]``.
            topk_logprobs: ``[B, T, K]``.
            topk_behavior_logprobs: ``[B, T, K]``.
            topk_is_sampled: ``[B, T, K]`` bool.
            validate: check values; they are read, which waits for a device.

        Raises:
            DataError: as the constructor, when a shape is not ``[B, T]``, or when the mask holds NaN or numbers below 0
                (an additive attention mask, which means the opposite).
        """
        logprobs = as_floats("logprobs", logprobs)
        advantages = as_floats("advantages", advantages, logprobs.device)
        if logprobs.dim() != 2:
            raise DataError(
                f"logprobs must be [B, T], got {list(logprobs.shape)}; for packed [N] tensors "
                "call TokenBatch(...) instead of from_padded"
            )
        shape = logprobs.shape
        if advantages.shape == shape[:1]:
            advantages = advantages.unsqueeze(1).expand(shape)
        padded = {
            "behavior_logprobs": behavior_logprobs,
            "advantages": advantages,
            "mask": mask,
            "proximal_logprobs": proximal_logprobs,
            "entropy": entropy,
            "topk_logprobs": topk_logprobs,
            "topk_behavior_logprobs": topk_behavior_logprobs,
            "topk_is_sampled": topk_is_sampled,
        }
        for name, value in padded.items():
            if value is None and name in OPTIONAL_FIELDS:
                continue
            padded[name] = value = _tensor(name, value, logprobs.device)
            _check_device(name, value, logprobs.device)
            if value.dim() == 3 and name.startswith("topk_") and value.shape[:2] == shape:
                continue
            if value.shape != shape or name.startswith("topk_"):
                allowed = "[B, T, K]" if name.startswith("topk_") else "[B, T]"
                allowed += " or [B]" if name == "advantages" else ""
                raise DataError(
                    f"{name} must be {allowed} with [B, T] = {list(shape)} as logprobs has, got {list(value.shape)}"
                )
        mask = padded.pop("mask")
        if validate and mask.dtype != torch.bool and bool((~(mask >= 0)).any()):
            raise DataError(
                "mask must be bool or numbers ≥ 0 of which non-zero means keep, got NaN or numbers below "
                "0. For an additive attention mask (0 and −inf) pass mask == 0."
            )
        keep = mask.to(torch.bool)
        rows = torch.arange(shape[0], device=logprobs.device).unsqueeze(1).expand(shape)
        packed: dict[str, Any] = {name: None if value is None else value[keep] for name, value in padded.items()}
        return cls(logprobs[keep], sequence_ids=rows[keep], **packed, validate=validate)


def _tensor(name: str, value: Any, device: torch.device) -> torch.Tensor:
    """``value`` as a tensor; of floats where ``name`` is a field that holds them."""
    integers = name in ("sequence_ids", "topk_is_sampled", "mask")
    return as_tensor(name, value, device) if integers else as_floats(name, value, device)


def _check_device(name: str, value: torch.Tensor, device: torch.device) -> None:
    if value.device != device:
        raise DataError(f"{name} is on {value.device} and logprobs on {device}; move one with .to()")


def _convert(batch: TokenBatch) -> None:
    """Make tensors of the arrays and lists among the fields."""
    device = batch.logprobs.device if isinstance(batch.logprobs, torch.Tensor) else torch.device("cpu")
    for field in fields(batch):
        value = getattr(batch, field.name)
        if not (isinstance(value, torch.Tensor) or (value is None and field.default is None)):
            object.__setattr__(batch, field.name, _tensor(field.name, value, device))


def _check_gradients(batch: TokenBatch) -> None:
    """Refuse a batch in which the gradient hangs on μ or π_old, a constant, instead of π."""
    if batch.logprobs.requires_grad:
        return
    for name in ("behavior_logprobs", "proximal_logprobs"):
        value = getattr(batch, name)
        if value is not None and value.requires_grad:
            raise DataError(
                f"{name} requires a gradient and logprobs does not: are they swapped? logprobs is log π of "
                f"the policy in training; {name} is a constant. If that is meant, pass {name}.detach()."
            )


def _check_shapes(batch: TokenBatch) -> None:
    shape = batch.logprobs.shape
    if len(shape) != 1:
        raise DataError(
            f"logprobs must be packed [N], got {list(shape)}; for [B, T] tensors with a mask "
            "call TokenBatch.from_padded"
        )
    widths = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if value is None:
            continue
        _check_shape(batch, field.name, value)
        _check_device(field.name, value, batch.logprobs.device)
        _check_dtype(field.name, value)
        if field.name.startswith("topk_"):
            widths[field.name] = value.shape[1]
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise DataError(f"the top-K fields must have one K, got {found}")


def _check_shape(batch: TokenBatch, name: str, value: torch.Tensor) -> None:
    """``[N]``, or ``[N, K]`` for a field of the top K."""
    shape = batch.logprobs.shape
    if name.startswith("topk_"):
        if value.dim() != 2 or value.shape[:1] != shape:
            raise DataError(f"{name} must be [N, K] with N = {shape[0]} as logprobs has, got {list(value.shape)}")
    elif value.shape != shape:
        per_sequence = name == "advantages" and batch.sequence_ids is not None
        hint = "; for one advantage a sequence pass advantages[i], i [N] the sequence's row" if per_sequence else ""
        raise DataError(f"{name} must be [N] = {list(shape)} as logprobs is, got {list(value.shape)}{hint}")


def _check_dtype(name: str, value: torch.Tensor) -> None:
    if name == "sequence_ids":
        if value.dtype != torch.int64:
            raise DataError(f"sequence_ids must be int64, got {value.dtype}; convert with .long()")
    elif name == "topk_is_sampled":
        if value.dtype != torch.bool:
            raise DataError(
                f"topk_is_sampled must be bool, got {value.dtype}; compare the top-K token ids with the sampled one"
            )
    elif not value.dtype.is_floating_point:
        raise DataError(f"{name} must be floating point, got {value.dtype}; convert with .float()")


def _check_values(batch: TokenBatch) -> None:
    problems = []
    for field in fields(batch):
        value = getattr(batch, field.name)
        if value is None or field.name in ("sequence_ids", "topk_is_sampled"):
            continue
        problems.append((f"{field.name} must be finite", ~torch.isfinite(value), value))
        if field.name.endswith("logprobs"):
            positive = value > POSITIVE_TOLERANCE
            problems.append((f"{field.name} must be ≤ 0 (they are log-probabilities in nats)", positive, value))
    if batch.sequence_ids is not None and len(batch) > 1:
        falls = torch.zeros_like(batch.sequence_ids, dtype=torch.bool)
        falls[1:] = batch.sequence_ids.diff() < 0
        problems.append(("sequence_ids must not decrease (sort the tokens by sequence)", falls, batch.sequence_ids))
    if not problems or not len(batch):
        return
    if not bool(torch.stack([bad.any() for _, bad, _ in problems]).any()):
        return
    for rule, bad, value in problems:
        where = bad.reshape(len(batch), -1).any(1).nonzero().flatten()
        if len(where):
            first = int(where[0])
            what = float(value.detach()[first][bad[first]].flatten()[0])
            raise DataError(
                f"{rule}: {len(where)} of {len(batch)} tokens are not, the first at index {first} "
                f"with {what:g}. Mask such tokens out (from_padded drops them), or fix "
                "where they come from."
            )
