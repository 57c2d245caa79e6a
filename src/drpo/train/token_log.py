"""The tokens of a step as records that `drpo inspect` reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from drpo.batch import TokenBatch
from drpo.inspection.records import lists_by_response
from drpo.model.policy import Policy
from drpo.train.rollout import Rollout
from drpo.train.seeds import derive_seed


class TokenLog:
    """Collects the responses of one step, each under the weights of the update that trained on it.

    A ``share`` of the responses is kept, drawn from a seed of its own: logging changes nothing else.
    """

    def __init__(self, policy: Policy, rollout: Rollout, step: int, share: float, seed: int):
        self.policy, self.rollout, self.step = policy, rollout, step
        draw = random.Random(derive_seed(seed, "token log", step))
        self.chosen = [draw.random() < share for _ in rollout.samples]
        self.records: list[dict[str, Any]] = []

    def add(self, update: int, part: Sequence[int], order: Sequence[int], batch: TokenBatch) -> None:
        """Record ``batch``: the responses ``part`` of the rollout, whole, in the ``order`` of positions in ``part``."""
        responses = [part[position] for position in order]
        lengths = [len(self.rollout.samples[row].response.token_ids) for row in responses]
        lists = lists_by_response(batch, lengths)
        for position, row in enumerate(responses):
            if self.chosen[row]:
                token_ids = self.rollout.samples[row].response.token_ids
                self.records.append(
                    {
                        "step": self.step,
                        "update": update,
                        "sequence_id": row,
                        "advantage": self.rollout.advantages[row],
                        "tokens": list(token_ids),
                        "texts": [self.policy.tokenizer.decode([token]) for token in token_ids],
                        **lists[position],
                    }
                )
