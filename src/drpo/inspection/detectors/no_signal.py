"""Responses without a gradient: all of their advantages are 0, as in a group whose rewards are equal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from drpo.inspection.measured import Measured
from drpo.inspection.readers.group_rewards import GroupRewards
from drpo.inspection.result import Finding

#: Share of the responses from which a warning is due, and fewest responses.
SHARE, FEWEST = 2 / 3, 50


class NoSignal:
    """Counts of responses with and without an advantage."""

    def __init__(self) -> None:
        self.responses = self.without = 0

    def add(self, part: Measured) -> None:
        """Count one chunk."""
        moved = np.add.reduceat(part.tokens.advantages != 0, part.starts, dtype=np.int64)
        self.responses += len(moved)
        self.without += int((moved == 0).sum())

    def found(self, rewards: GroupRewards) -> Iterator[Finding]:
        """A warning if most responses have none. ``rewards`` is what the advantages were computed from, if anything."""
        if self.responses < FEWEST or self.without < SHARE * self.responses:
            return
        groups = (
            f" In {rewards.equal:,} of {len(rewards.sizes):,} groups all rewards are equal." if rewards.sizes else ""
        )
        yield Finding(
            "no_signal",
            "warning",
            f"{self.without / self.responses:.0%} of the responses have no gradient: Â = 0",
            f"{self.without:,} of {self.responses:,} responses have Â = 0 on all tokens, as where all responses to a "
            f"prompt have one reward.{groups} They cost sampling and forward passes, and change nothing.",
            "Use prompts that the policy solves sometimes: filter by pass rate (drpo filter; verl: "
            "algorithm.filter_groups), or mix easier or harder ones. Sample more responses a prompt (group_size; TRL: "
            "num_generations). If nearly all have none, check that the reward function is not constant.",
        )
