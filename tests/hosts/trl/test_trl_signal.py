"""Rollout batches that hold nothing to learn from, and tokens that came without a log-probability, in real runs."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl_runs import make_config, make_trainer

from drpo.errors import DataError, DrpoWarning
from drpo.integrations.trl import DRPOTrainer, InProcessRollouts

#: A prompt as the model was trained on, whose answers are 18 to 20 tokens long.
SUM = "State the final answer to the following arithmetic problem: {} + 31 =\n"


class WithGaps(InProcessRollouts):
    """As vLLM at times: the first response comes with ``gaps`` log-probabilities that are null or NaN."""

    def __init__(self, gaps: int, value: float | None = None):
        super().__init__()
        self.gaps, self.value = gaps, value

    def __call__(self, prompts: Any, trainer: Any) -> dict[str, list[Any]]:
        found = super().__call__(prompts, trainer)
        found["logprobs"] = [list(values) for values in found["logprobs"]]
        for index in range(self.gaps):
            found["logprobs"][index][0] = self.value
        return found


def numbered(completions: list[str], **_: Any) -> list[float]:
    """A reward that differs within every group, whatever the responses are."""
    return [float(index) for index in range(len(completions))]


def logged(trainer: DRPOTrainer, name: str) -> list[float]:
    return [record[name] for record in trainer.state.log_history if name in record]


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_log_probability_is_left_out_and_counted(value: float | None) -> None:
    trainer = make_trainer(make_config(num_iterations=2, max_steps=2), rollout_func=WithGaps(1, value))
    trainer.train()
    assert trainer.state.global_step == 2
    (share,) = set(logged(trainer, "drpo/left_out_share"))
    assert 0 < share <= 1 / 8
    assert all(norm > 0 for norm in logged(trainer, "grad_norm"))


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "sequence_sum"])
def test_the_gradient_is_that_of_the_rollout_without_the_token(aggregation: str) -> None:
    losses, gradients = [], []
    for gaps in (0, 1):
        trainer = make_trainer(make_config(num_iterations=2, aggregation=aggregation), rollout_func=WithGaps(gaps))
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        examples = [trainer.train_dataset[row // 2] for row in range(8)]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        output = trainer._generate_and_score_completions(examples)
        if not gaps:  # delete the token by hand
            tool_mask = torch.ones_like(output["completion_mask"])
            tool_mask[0, 0] = 0
            output |= {"tool_mask": tool_mask, "num_items_in_batch": output["num_items_in_batch"] - 1}
        loss = trainer._compute_loss(trainer.model, output)
        loss.backward()
        losses.append(float(loss))
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]))
    assert losses[0] == losses[1]
    assert torch.equal(*gradients) and bool(gradients[0].any())


def test_too_many_missing_log_probabilities_stop_the_run() -> None:
    trainer = make_trainer(make_config(num_iterations=2), rollout_func=WithGaps(8))
    with pytest.raises(DataError, match=r"TRL: 8 of \d+ tokens have no log μ"):
        trainer.train()


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (lambda completions, **_: [0.0] * len(completions), r"no group's rewards vary \(mean 0\)"),
        (lambda completions, **_: [None] * len(completions), "every reward failed"),
        (numbered, r"cut off at the length limit.*Raise max_completion_length \(now 2\)"),
    ],
)
def test_batches_without_a_signal_are_told_after_the_second(reward: Any, says: str) -> None:
    config = make_config(max_steps=4, num_iterations=2, max_completion_length=2 if reward is numbered else 24)
    prompts = Dataset.from_list([{"prompt": SUM.format(a)} for a in range(20, 40)])
    trainer = make_trainer(config, reward_funcs=reward, train_dataset=prompts)
    with pytest.warns(DrpoWarning, match=f"(?s)step 3: 2 rollout batches in a row.*{says}"):
        trainer.train()


def test_a_run_with_a_signal_is_told_nothing() -> None:
    trainer = make_trainer(make_config(max_steps=4, num_iterations=2, max_completion_length=24))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DrpoWarning)
        trainer.train()
