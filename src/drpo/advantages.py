"""Advantages of responses within their group (``R`` responses, all groups together)."""

from __future__ import annotations

import numbers
from typing import Literal, get_args

import torch

from drpo.checks import as_floats, as_tensor, is_count, is_nonnegative, shorten
from drpo.errors import ConfigError, DataError, suggest

Kind = Literal["group_mean", "standardized", "leave_one_out"]
KINDS: tuple[str, ...] = get_args(Kind)


def group_advantages(
    rewards: torch.Tensor, group_ids: torch.Tensor | int, kind: Kind = "group_mean", epsilon: float = 1e-6
) -> torch.Tensor:
    """One advantage a response.

    Args:
        rewards: ``[R]`` float; a NumPy array or a list will do.
        group_ids: ``[R]`` int64, in any order; responses to one prompt share an id. An int is the size of every group,
            whose responses then stand side by side.
        kind: ``group_mean``: R − mean of the group (Dr. GRPO, arXiv:2503.20783 §3.2; what the DRPO paper ran).
            ``standardized``: that divided by the group's standard deviation (with Bessel's correction) + epsilon
            (GRPO, arXiv:2402.03300 §4.1.2). ``leave_one_out``: R − mean of the *other* responses (RLOO,
            arXiv:2402.14740). A group of one gets 0.
        epsilon: in reward units, for ``standardized``.

    Returns:
        ``[R]`` in the dtype of ``rewards``.

    Raises:
        ConfigError: unknown kind, a group size below 1, or an epsilon that is not a number ≥ 0. DataError: shapes or
            dtypes disagree, the number of rewards is no multiple of the group size, or a reward is not finite.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown advantage kind {kind!r}.{suggest(kind, KINDS)}")
    if not is_nonnegative(epsilon):
        raise ConfigError(f"epsilon must be a finite number ≥ 0 (reward units), got {shorten(repr(epsilon))}")
    rewards = as_floats("rewards", rewards)
    group_ids = _group_ids(group_ids, rewards)
    if rewards.shape != group_ids.shape:
        raise DataError(
            f"rewards and group_ids must both be [R], got {list(rewards.shape)} and {list(group_ids.shape)}"
        )
    if rewards.device != group_ids.device:
        raise DataError(f"rewards are on {rewards.device} and group_ids on {group_ids.device}; move one with .to()")
    if not rewards.dtype.is_floating_point or group_ids.dtype != torch.int64:
        raise DataError(
            f"rewards must be floating point and group_ids int64, got {rewards.dtype} and "
            f"{group_ids.dtype}; convert with .float() and .long()"
        )
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
    centerd = above - total(above) / size
    if kind == "group_mean":
        return centerd
    others = (size - 1).clamp(min=1)
    if kind == "leave_one_out":
        return centerd * size / others
    return centerd / ((total(centerd.square()) / others).sqrt() + epsilon)


def _group_ids(groups: torch.Tensor | int, rewards: torch.Tensor) -> torch.Tensor:
    """``groups`` as ids ``[R]``; an int is the size of each group."""
    if rewards.dim() != 1:
        raise DataError(
            f"rewards must be [R], one a response, got {list(rewards.shape)}; of [P, G], G responses to each of P "
            "prompts, pass rewards.flatten() and the group size G"
        )
    if isinstance(groups, float | bool) or (isinstance(groups, numbers.Integral) and not is_count(groups)):
        raise ConfigError(f"a group size must be an integer ≥ 1, got {groups!r}")
    if not isinstance(groups, numbers.Integral):
        return as_tensor("group_ids", groups, rewards.device)
    if len(rewards) % int(groups):
        raise DataError(
            f"{len(rewards)} rewards do not divide into groups of {groups}; pass group_ids [R] if group sizes differ"
        )
    return torch.arange(len(rewards), device=rewards.device) // int(groups)
