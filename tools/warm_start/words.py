"""The bases of the lab's settings: word problems, solved in words, with a vocabulary of thousands of tokens."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from drpo.tasks import make_task
from tools.warm_start.prose import brief_solution, literature, passages, worked_solution
from tools.warm_start.spec import IGNORED, WarmStart

#: Problems and solutions that the tokenizer is made from, beside the literature.
CORPUS = 20_000
#: Words of a passage of literature.
PASSAGE = 40


@dataclass(frozen=True, kw_only=True)
class Words(WarmStart):
    """A base that solves word problems; ``worked``: at length. A ``prose_share`` of what it learns is literature."""

    task: str = "word_problems"
    task_parameters: dict[str, Any] = field(default_factory=lambda: {"min_steps": 2, "max_steps": 2})
    worked: bool = False
    wrong_share: float = 0.5
    prose_share: float = 0.05
    vocabulary: int = 4096
    whole_words: tuple[str, ...] = ("<answer>", "</answer>")
    batch: int = 32
    pool: int = 16
    learning_rate: float = 2e-3

    def texts(self) -> Iterator[tuple[str, str]]:
        """Problems of the training side with solutions, and now and then a passage of literature."""
        rng = random.Random(self.seed)
        task = make_task(self.task, **self.task_parameters)
        prose = passages(literature(), PASSAGE, rng)
        solution = worked_solution if self.worked else brief_solution
        for index in itertools.count():
            if rng.random() < self.prose_share:
                yield "", next(prose)
            else:
                example = task.training_example(self.seed + 10_000, index)
                yield example.prompt + "\n", solution(example.data, self.wrong_share, rng)

    def corpus(self, texts: Iterator[tuple[str, str]]) -> Iterator[str]:
        """The literature, then problems and solutions."""
        yield literature()
        for given, learned in itertools.islice(texts, CORPUS):
            yield given + learned

    def loss(self, model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of the learned tokens, logits worked out for these alone; for experts, the loss
        that balances the load of each layer on top."""
        experts = getattr(model.config, "num_experts", 0)
        options = {"output_router_logits": True} if experts else {}
        out = model.base_model(input_ids=ids, use_cache=False, **options)
        learned = labels[:, 1:] != IGNORED
        logits = out.last_hidden_state[:, :-1][learned] @ model.get_output_embeddings().weight.T
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][learned])
        if not experts:
            return loss
        chosen = model.config.num_experts_per_tok
        balance = [load_balancing_loss_func((layer,), experts, chosen) for layer in out.router_logits]
        return loss + model.config.router_aux_loss_coef * sum(balance) / len(balance)
