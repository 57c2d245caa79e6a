"""`record` keeps what TRL's own losses see, and changes nothing of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
from trl_runs import PROMPTS, answer_length, make_config, make_trainer

from drpo.errors import ConfigError
from drpo.files import read_jsonl
from drpo.inspection.inspect import inspect
from drpo.integrations.trl import InProcessRollouts, record
from drpo.model.policy import load_policy


def native(folder: Path, rollouts: Any = None, **settings: Any) -> Any:
    """TRL's own trainer: two rollout batches, each with two updates of two micro-batches."""
    policy = load_policy("embedded:arithmetic", torch.device("cpu"))
    config: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "num_generations": 2,
        "max_completion_length": 8,
        "max_steps": 4,
        "learning_rate": 3e-3,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        **settings,
    }
    parts: dict[str, Any] = {
        "reward_funcs": answer_length,
        "rollout_func": InProcessRollouts() if rollouts is None else rollouts or None,
    }
    trainer = GRPOTrainer(
        model=policy.model,
        args=GRPOConfig(output_dir=str(folder), **config),
        processing_class=policy.tokenizer,
        **parts,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trained(trainer: Any) -> tuple[list[dict[str, float]], list[torch.Tensor]]:
    """The figures of every step, those that are times left out, and the weights at the end."""
    trainer.train()
    figures = [
        {name: value for name, value in entry.items() if "time" not in name and "per_second" not in name}
        for entry in trainer.state.log_history
    ]
    return figures, [value.detach().clone() for value in trainer.model.parameters()]


@pytest.mark.parametrize("settings", [{}, {"beta": 0.01, "loss_type": "grpo"}], ids=["default", "kl"])
def test_nothing_of_the_training_changes(tmp_path: Path, settings: dict[str, Any]) -> None:
    expected, expected_weights = trained(native(tmp_path / "plain", **settings))  # making a trainer sets the seed
    recorded = native(tmp_path / "recorded", **settings)
    record(recorded)
    figures, weights = trained(recorded)
    assert figures == expected and any("loss" in entry for entry in figures)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected_weights, strict=True))
    assert not (tmp_path / "plain" / "tokens").exists()


def test_the_log_holds_every_token_at_the_weights_of_its_update(tmp_path: Path) -> None:
    trainer = native(tmp_path)
    record(trainer)
    counted: list[int] = []
    loss = trainer._compute_loss

    def counting(model: Any, inputs: Any) -> torch.Tensor:
        counted.append(int(inputs["completion_mask"].sum()))
        return loss(model, inputs)

    trainer._compute_loss = counting
    trainer.train()
    lines = [line for file in sorted((tmp_path / "tokens").iterdir()) for line in read_jsonl(file)]
    assert [(line["step"], line["update"]) for line in lines] == [
        moment for moment in ((1, 0), (2, 1), (3, 0), (4, 1)) for _ in range(8)
    ]
    found = inspect([tmp_path / "tokens"], delta=0.15)
    assert found.tokens == sum(counted) and found.sequences == 32 and found.masked_tokens == 0
    assert all(len(line["texts"]) == len(line["entropy"]) == len(line["tokens"]) for line in lines)
    by_update = {0: 0.0, 1: 0.0}
    for line in lines:
        for pi, mu in zip(line["logprobs"], line["behavior_logprobs"], strict=True):
            by_update[line["update"]] = max(by_update[line["update"]], abs(pi - mu))
    assert by_update[0] < 1e-4 < 1e-2 < by_update[1]  # the second update is at other weights than those that sampled


def test_the_log_is_bounded(tmp_path: Path) -> None:
    trainer = native(tmp_path, max_steps=2)
    record(trainer, limit=10)
    trainer.train()
    for file in (tmp_path / "tokens").iterdir():
        lengths = [len(line["tokens"]) for line in read_jsonl(file)]
        assert sum(lengths[:-1]) < 10 <= sum(lengths)


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no μ to record: .*use_vllm=True, or pass rollout_func=drpo"):
        record(native(tmp_path, rollouts=False))
    with pytest.raises(ConfigError, match="needs a GRPOTrainer of TRL, got str"):
        record("trainer")
    with pytest.raises(ConfigError, match="set log_tokens=True in its DRPOConfig"):
        record(make_trainer(make_config(output_dir=str(tmp_path), steps_per_generation=2)))
    trainer = native(tmp_path)
    with pytest.raises(ConfigError, match="limit must be a whole number of tokens above 0, got 0"):
        record(trainer, limit=0)
    record(trainer)
    with pytest.raises(ConfigError, match="call record once"):
        record(trainer)


def test_a_rollout_without_log_probabilities_is_named(tmp_path: Path) -> None:
    def without(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        return {**InProcessRollouts()(prompts, trainer), "logprobs": None}

    trainer = native(tmp_path, rollouts=without)
    record(trainer)
    with pytest.raises(ConfigError, match="hands over no sampling_per_token_logps, so that μ is missing"):
        trainer.train()
