"""Advantages of a log that has none: each response's reward less the mean of its group.

The responses of a group may stand anywhere in the log, so it is read twice: once to collect the rewards, and once more
with the advantages. Both times the responses come in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drpo.errors import DataError


class GroupRewards:
    """What is known of the responses of a log, one reward and one group each.

    Attributes:
        reward, group: names of the columns; empty where the log has advantages.
        sizes: ``[G]`` responses of each group.
        equal: groups in which all rewards are equal.
    """

    def __init__(self) -> None:
        self.reward = self.group = ""
        self.sizes: list[int] = []
        self.equal = 0
        self._groups: dict[Any, int] = {}
        self._rewards: list[float] = []
        self._members: list[int] = []
        self._advantages: np.ndarray | None = None
        self._next = 0

    @property
    def collecting(self) -> bool:
        """Whether the log is read for its rewards; the advantages are not known yet."""
        return bool(self.reward) and self._advantages is None

    def advantage(self, here: str, file: str, step: Any, group: Any, reward: float) -> float:
        """The advantage of the next response, in the order of the log; 0 while rewards are collected.

        Args:
            here: the response, for messages.
            file: it belongs to the key of the group where the log has no step.
            step: None where the log has none.
            group: the id of its group, a whole number or text.
            reward: a number.

        Raises:
            DataError: the reward is not finite, or the log has become longer since its rewards were collected.
        """
        if self._advantages is None:
            if not np.isfinite(reward):
                raise DataError(f"{here}: {self.reward} is {reward:g}. Every response needs a finite reward.")
            # 1 and 1.0 are one id, 1 and "1" are not.
            key = (file if step is None else step, group)
            self._members.append(self._groups.setdefault(key, len(self._groups)))
            self._rewards.append(float(reward))
            return 0.0
        if self._next == len(self._advantages):
            raise DataError(f"{here} was written after the rewards had been read. Inspect the log again.")
        self._next += 1
        return float(self._advantages[self._next - 1])

    def finish(self) -> None:
        """Compute the advantages; what follows is the second reading.

        Raises:
            DataError: no group has two responses.
        """
        import torch

        from drpo.advantages import group_advantages

        members, rewards = torch.tensor(self._members, dtype=torch.int64), torch.tensor(self._rewards)
        self._advantages = group_advantages(rewards.float(), members).numpy()
        sizes = np.bincount(self._members, minlength=len(self._groups))
        self.sizes = sizes.tolist()
        if len(sizes) and sizes.max() == 1:
            raise DataError(
                f"the log has no advantages, and each of its {len(sizes):,} responses is alone in its group "
                f"({self.group}), so that reward less the group's mean is 0. Name the column that responses to one "
                "prompt share with --map group=NAME, or log the advantages."
            )
        differing = np.unique(np.asarray(self._members)[self._advantages != 0])
        self.equal = len(sizes) - len(differing)
