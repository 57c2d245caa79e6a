"""From per-token losses to the scalar that is differentiated.

A denominator belongs to a whole optimizer step. Passing the same ``denominator`` to every micro-batch (or
rank) makes the sum of their results equal to the result of one big batch.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from drpo.batch import TokenBatch
from drpo.errors import ConfigError, DataError, suggest

Mode = Literal["token_mean", "sequence_mean", "sequence_sum"]
MODES: tuple[str, ...] = get_args(Mode)


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
            those of this batch.
        horizon: tokens, for ``sequence_sum`` only, where it is required.

    Raises:
        ConfigError: an unknown mode, a missing or superfluous horizon, a denominator that is not positive.
        DataError: shapes disagree, or an empty batch without a denominator.
    """
    if mode not in MODES:
        raise ConfigError(f"unknown aggregation mode {mode!r}.{suggest(mode, MODES)}")
    if mode == "sequence_sum" and (horizon is None or not horizon > 0):
        raise ConfigError(f"sequence_sum needs horizon > 0 (tokens; the maximum response length), got {horizon}")
    if mode != "sequence_sum" and horizon is not None:
        raise ConfigError(f"horizon is for sequence_sum only; {mode} would ignore it. Remove it.")
    if values.shape != batch.logprobs.shape:
        raise DataError(f"values must be [N] = {list(batch.logprobs.shape)}, got {list(values.shape)}")
    if denominator is None:
        if not len(batch):
            raise DataError("an empty batch has no mean; pass the denominator of the whole update")
        # Not batch.num_sequences, which waits for the device.
        denominator = len(batch) if mode == "token_mean" else batch.sequence_index()[-1] + 1
    elif not isinstance(denominator, torch.Tensor) and not denominator > 0:
        raise ConfigError(f"denominator must be positive, got {denominator}")
    if mode == "token_mean":
        return values.sum() / denominator
    if mode == "sequence_sum":
        assert horizon is not None
        return values.sum() / horizon / denominator
    index = batch.sequence_index()
    lengths = torch.zeros_like(index).scatter_add_(0, index, torch.ones_like(index))
    return (values / lengths[index]).sum() / denominator
