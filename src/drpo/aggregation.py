"""From per-token losses to the scalar that is differentiated.

A denominator belongs to a whole optimizer step. Passing the same ``denominator`` to every micro-batch (or
rank) makes the sum of their results equal to the result of one big batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from drpo.batch import TokenBatch
from drpo.checks import is_positive, is_readable, shorten
from drpo.errors import ConfigError, DataError, suggest

Mode = Literal["token_mean", "sequence_mean", "sequence_sum"]
MODES: tuple[str, ...] = get_args(Mode)
#: No response is longer; a horizon beyond it is a mistake, and makes a loss of 0.
MAX_HORIZON = 10**9


def aggregate(
    values: torch.Tensor,
    batch: TokenBatch,
    mode: Mode = "token_mean",
    denominator: float | torch.Tensor | None = None,
    horizon: int | None = None,
) -> torch.Tensor:
    """Reduce per-token ``values`` ``[N]`` to a scalar.

    Args:
        values: ``[N]``, as an objective's ``loss``.
        batch: the batch they belong to; a sequence must be whole within it.
        mode: ``token_mean``: Σ values / tokens (DAPO, arXiv:2503.14476 Eq. 8). ``sequence_mean``: the mean over
            each sequence, averaged over sequences (GRPO, arXiv:2402.03300 Eq. 3). ``sequence_sum``: the sum over
            each sequence divided by a fixed ``horizon``, averaged over sequences (Dr. GRPO, arXiv:2503.20783;
            what the DRPO paper ran with horizon = maximum response length).
        denominator: tokens (``token_mean``) or sequences (the others) of the whole optimizer step; None takes
            those of this batch. A number, or a tensor of one number. A tensor on an accelerator is not checked, which
            would wait for the device: 0 or NaN there makes the loss infinite or NaN.
        horizon: tokens, for ``sequence_sum`` only, where it is required.

    Raises:
        ConfigError: an unknown mode, a missing or superfluous horizon, a horizon or denominator that is not a finite
            number above zero.
        DataError: shapes disagree, ``values`` or ``batch`` is something else, or an empty batch without a denominator.
    """
    _check_mode(mode, horizon)
    if not isinstance(batch, TokenBatch):
        raise DataError(f"batch must be a TokenBatch, got {type(batch).__name__}; aggregate takes (values, batch)")
    if not isinstance(values, torch.Tensor):
        fix = "pass its loss: aggregate(objective(batch).loss, batch)" if hasattr(values, "loss") else "pass a loss [N]"
        raise DataError(f"values must be a tensor [N], got {type(values).__name__}; {fix}")
    if values.shape != batch.logprobs.shape:
        raise DataError(f"values must be [N] = {list(batch.logprobs.shape)}, got {list(values.shape)}")
    if denominator is None:
        if not len(batch):
            raise DataError("an empty batch has no mean; pass the denominator of the whole update")
        # Not batch.num_sequences, which waits for the device.
        denominator = len(batch) if mode == "token_mean" else batch.sequence_index()[-1] + 1
    else:
        denominator = _checked(denominator)
    if mode == "token_mean":
        return values.sum() / denominator
    if mode == "sequence_sum":
        assert horizon is not None
        return values.sum() / horizon / denominator
    index = batch.sequence_index()
    lengths = torch.zeros_like(index).scatter_add_(0, index, torch.ones_like(index))
    return (values / lengths[index]).sum() / denominator


@dataclass(frozen=True, slots=True)
class Reduction:
    """The arguments of :func:`aggregate` as one value: ``mode``, ``denominator`` and ``horizon`` as there."""

    mode: Mode = "token_mean"
    denominator: float | None = None
    horizon: int | None = None

    def over(self, tokens: int, sequences: int) -> Reduction:
        """The reduction of a whole optimizer step: its denominator is ``tokens`` or ``sequences``, as the mode asks."""
        return replace(self, denominator=tokens if self.mode == "token_mean" else sequences)

    def __call__(self, values: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Reduce per-token ``values`` ``[N]`` of ``batch`` to a scalar."""
        return aggregate(values, batch, self.mode, self.denominator, self.horizon)


def _check_mode(mode: str, horizon: int | None) -> None:
    if mode not in MODES:
        raise ConfigError(f"unknown aggregation mode {mode!r}.{suggest(mode, MODES)}")
    if mode == "sequence_sum" and not (is_positive(horizon) and horizon <= MAX_HORIZON):  # pyright: ignore[reportOptionalOperand]
        raise ConfigError(
            "sequence_sum needs horizon > 0 (tokens; the maximum response length), got "
            f"{shorten(repr(horizon))}; at most {MAX_HORIZON:,}"
        )
    if mode != "sequence_sum" and horizon is not None:
        raise ConfigError(f"horizon is for sequence_sum only; {mode} would ignore it. Remove it.")


def _checked(denominator: object) -> float | torch.Tensor:
    """``denominator`` as a float or a 0-d tensor; what a tensor holds is checked where that waits for no device."""
    if isinstance(denominator, torch.Tensor):
        if denominator.numel() != 1 or denominator.is_complex():
            raise ConfigError(
                f"denominator must be one number, got a tensor {list(denominator.shape)}; sum it up over "
                "the whole optimizer step"
            )
        denominator = denominator.detach().reshape(())
        if is_readable(denominator):
            _require_positive(denominator.item())
        return denominator
    _require_positive(denominator)
    return float(denominator)  # pyright: ignore[reportArgumentType]


def _require_positive(denominator: object) -> None:
    if not is_positive(denominator):
        raise ConfigError(
            f"denominator must be positive, got {shorten(repr(denominator))}; it is the number of tokens "
            "or sequences of the whole optimizer step"
        )
