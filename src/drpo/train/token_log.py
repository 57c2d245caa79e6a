"""The tokens of a step as records that `drpo inspect` reads: a bounded sample, all, or a share.

Shapes: ``R`` responses of a step.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch

from drpo.batch import TokenBatch
from drpo.model.policy import Policy
from drpo.objectives import Objective, gradient_weight
from drpo.run_directory import WEIGHTS
from drpo.token_log import TokenTexts, lists_by_response, support_by_response
from drpo.train.config import SAMPLE, TrainConfig
from drpo.train.rollout import Rollout
from drpo.train.seeds import derive_seed

#: Of a step in a sample: no response is added to this many tokens (about 50 kB).
SAMPLED_TOKENS = 512


class TokenLog:
    """Collects responses of one step, each under the weights of the update that trained on it.

    Which ones is drawn from a seed of its own: logging changes nothing else.
    """

    def __init__(self, policy: Policy, rollout: Rollout, step: int, config: TrainConfig, objective: Objective):
        self.objective = objective
        self.rollout, self.step = rollout, step
        self.lengths = [len(sample.response.token_ids) for sample in rollout.samples]
        self.chosen = chosen_responses(self.lengths, config, step)
        self.records: list[dict[str, Any]] = []
        self._texts = TokenTexts(policy.tokenizer.decode)

    def add(self, update: int, part: Sequence[int], order: Sequence[int], batch: TokenBatch) -> None:
        """Record ``batch``, all of an update: the responses ``part`` of the rollout, in the ``order`` of positions in
        ``part``, with the gradient weight that the objective gives each token."""
        rows = [part[position] for position in order]
        kept = [row in self.chosen for row in rows]
        if not any(kept):
            return
        lengths = torch.tensor([self.lengths[row] for row in rows])
        where = torch.tensor(kept).repeat_interleave(lengths).to(batch.logprobs.device)
        rows = [row for row in rows if row in self.chosen]
        sizes = [self.lengths[row] for row in rows]
        with torch.no_grad():
            lists = lists_by_response(batch.select(where), sizes)
        weights = gradient_weight(self.objective, batch)[where].cpu().split(sizes)
        for row, values, weight in zip(rows, lists, weights, strict=True):
            sample = self.rollout.samples[row]
            token_ids, support = sample.response.token_ids, sample.response.support
            kept = {} if support is None else support_by_response(support, [len(token_ids)])[0]
            self.records.append(
                {
                    "step": self.step,
                    "update": update,
                    "sequence_id": row,
                    "group_id": self.rollout.groups[row],
                    "reward": sample.grade.reward,
                    "advantage": self.rollout.advantages[row],
                    "tokens": list(token_ids),
                    "texts": [self._texts[token] for token in token_ids],
                    **values,
                    **kept,
                    WEIGHTS: [round(w, 4) if math.isfinite(w) else None for w in weight.tolist()],
                }
            )


def chosen_responses(lengths: Sequence[int], config: TrainConfig, step: int) -> set[int]:
    """Which of ``R`` responses with so many tokens are logged."""
    draw = random.Random(derive_seed(config.seed, "token log", step))
    if config.log_tokens != SAMPLE:
        return {row for row in range(len(lengths)) if draw.random() < config.log_tokens_share}
    chosen: set[int] = set()
    tokens = 0
    for row in draw.sample(range(len(lengths)), len(lengths)):
        if tokens >= SAMPLED_TOKENS:
            break
        chosen.add(row)
        tokens += lengths[row]
    return chosen
