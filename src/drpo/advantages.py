"""Advantages of responses within their group (``R`` responses, all groups together)."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from drpo.errors import ConfigError, DataError, suggest

Kind = Literal["group_mean", "standardized", "leave_one_out"]
KINDS: tuple[str, ...] = get_args(Kind)


def group_advantages(
    rewards: torch.Tensor, group_ids: torch.Tensor, kind: Kind = "group_mean", epsilon: float = 1e-6
) -> torch.Tensor:
    """One advantage a response.

    Args:
        rewards: ``[R]`` float.
        group_ids: ``[R]`` int64, in any order; responses to one prompt share an id.
        kind: ``group_mean``: R − mean of the group (Dr. GRPO, arXiv:2503.20783 §3.2; what the DRPO paper ran).
            ``standardized``: that divided by the group's standard deviation (with Bessel's correction) + epsilon
            (GRPO, arXiv:2402.03300 §4.1.2). ``leave_one_out``: R − mean of the *other* responses (RLOO,
            arXiv:2402.14740). A group of one gets 0.
        epsilon: in reward units, for ``standardized``.

    Returns:
        ``[R]`` in the dtype of ``rewards``.

    Raises:
        ConfigError: unknown kind. DataError: shapes or dtypes disagree, or a reward is not
            finite.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown advantage kind {kind!r}.{suggest(kind, KINDS)}")
    if rewards.dim() != 1 or rewards.shape != group_ids.shape:
        raise DataError(f"rewards and group_ids must both be [R], got {list(rewards.shape)} and "
                        f"{list(group_ids.shape)}")
    if not rewards.dtype.is_floating_point or group_ids.dtype != torch.int64:
        raise DataError(f"rewards must be floating point and group_ids int64, got {rewards.dtype} and "
                        f"{group_ids.dtype}; convert with .float() and .long()")
    if not bool(torch.isfinite(rewards).all()):
        raise DataError("rewards must be finite; drop the responses whose grading failed")
    _, group = group_ids.unique(return_inverse=True)
    groups = int(group.max()) + 1 if len(group) else 0

    def total(values: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(groups, dtype=values.dtype, device=values.device)
        return sums.scatter_add_(0, group, values)[group]

    # Measured from the lowest of the group, so that equal rewards give exactly 0: dividing by a standard
    # deviation would blow the rounding of their mean up to the size of a real advantage.
    lowest = torch.full((groups,), torch.inf, dtype=rewards.dtype, device=rewards.device)
    above = rewards - lowest.scatter_reduce_(0, group, rewards, "amin")[group]
    size = total(torch.ones_like(rewards))
    centred = above - total(above) / size
    if kind == "group_mean":
        return centred
    others = (size - 1).clamp(min=1)
    if kind == "leave_one_out":
        return centred * size / others
    return centred / ((total(centred.square()) / others).sqrt() + epsilon)
