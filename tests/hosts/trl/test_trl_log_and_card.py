"""The token log of a real run says what its metrics say, and TRL's model card names the paper."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from trl_runs import make_config, make_trainer

from drpo.batch import TokenBatch
from drpo.errors import ConfigError
from drpo.inspection.inspect import inspect
from drpo.integrations.trl.tokens import TrainerTokens
from drpo.model.policy import load_policy


def logged_run(folder: Path, **settings: object) -> tuple[list[dict], list[dict]]:
    """Two rollout batches with two updates each; the metrics of every update, and the records."""
    trainer = make_trainer(
        make_config(
            output_dir=str(folder),
            max_steps=4,
            steps_per_generation=2,
            learning_rate=3e-3,
            log_tokens=True,
            **settings,
        )
    )
    trainer.train()
    metrics = [entry for entry in trainer.state.log_history if "drpo/shift" in entry]
    files = sorted((folder / "tokens").iterdir())
    assert [file.name for file in files] == [f"step-{step:06d}.jsonl" for step in range(1, 5)]
    return metrics, [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("beta", [0.0, 0.01], ids=["fused", "logprobs"])
def test_the_log_agrees_with_the_metrics(tmp_path: Path, beta: float) -> None:
    metrics, records = logged_run(tmp_path, beta=beta)
    assert [record["update"] for record in records] == [0] * 8 + [1] * 8 + [0] * 8 + [1] * 8
    tokens = [sum(len(record["tokens"]) for record in records if record["step"] == step) for step in range(1, 5)]
    found = inspect([tmp_path / "tokens"], delta=0.15)
    assert found.tokens == sum(tokens) and found.sequences == 32 and found.masked_tokens == 0
    for name in ("shift", "mismatch", "ratio", "beyond_delta", "diverging_share", "rare_share"):
        weighted = sum(count * entry[f"drpo/{name}"] for count, entry in zip(tokens, metrics, strict=True))
        assert found.figures[name] == pytest.approx(weighted / sum(tokens), rel=1e-4, abs=1e-7), name
    assert found.figures["mismatch_max"] == pytest.approx(
        max(entry["drpo/mismatch_max"] for entry in metrics), rel=1e-4
    )


def test_the_log_is_bounded(tmp_path: Path) -> None:
    _, records = logged_run(tmp_path, log_tokens_limit=10)
    for step in range(1, 5):
        lengths = [len(record["tokens"]) for record in records if record["step"] == step]
        assert sum(lengths[:-1]) < 10 <= sum(lengths)


def test_a_training_that_starts_again_writes_its_log_again(tmp_path: Path) -> None:
    tokens = TrainerTokens(str(tmp_path), load_policy("embedded:arithmetic", torch.device("cpu")).tokenizer, 100)
    for step in (1, 2, 3, 1, 2):
        batch = TokenBatch(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.5]), torch.tensor([0.5, 0.5]))
        tokens.add(batch, torch.tensor([5, 6]), step)
    assert sorted(file.name for file in (tmp_path / "tokens").iterdir()) == ["step-000001.jsonl", "step-000002.jsonl"]
    assert inspect([tmp_path / "tokens"], delta=0.15).tokens == 4


def test_a_limit_of_no_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="log_tokens_limit must be > 0"):
        make_config(log_tokens=True, log_tokens_limit=0)


def test_the_model_card_cites_the_paper(tmp_path: Path) -> None:
    trainer = make_trainer(make_config(output_dir=str(tmp_path), num_iterations=2))
    trainer.create_model_card(model_name="tiny")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "https://huggingface.co/papers/2606.09821" in card
    (entry,) = re.findall(r"@misc\{yao2026rethinking,.*?\n\}", card, re.DOTALL)
    assert "eprint        = {2606.09821}" in entry and "Yao and Zhou and Qi and Lee and Bo and Pang" in entry
