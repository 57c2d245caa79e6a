"""Small real trainers for the tests: the embedded model, its own task's prompts, everything on one CPU core."""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("CI", "1")  # no telemetry from tests

import torch
from datasets import Dataset
from transformers import PrinterCallback

from drpo.integrations.trl import DRPOConfig, DRPOTrainer, InProcessRollouts
from drpo.model.policy import load_policy

PROMPTS = [f"{a} + {b}\n" for a in range(2, 10) for b in range(1, 9)]


def make_config(**settings: Any) -> DRPOConfig:
    """Two responses to each of four prompts, 8 tokens long at most, one update."""
    settings = {
        "output_dir": settings.pop("output_dir", None) or tempfile.mkdtemp(),
        "per_device_train_batch_size": 8,
        "num_generations": 2,
        "max_completion_length": 8,
        "max_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        **settings,
    }
    return DRPOConfig(**settings)


def answer_length(completions: list[str], **_: Any) -> list[float]:
    """A reward that differs within nearly every group."""
    return [float(sum(map(ord, text)) % 7) for text in completions]


def length_of_messages(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    """The same of conversations; a rollout worker imports it in a process of its own."""
    return answer_length([messages[-1]["content"] for messages in completions])


def make_trainer(config: DRPOConfig, **parts: Any) -> DRPOTrainer:
    """A trainer of the embedded model."""
    policy = load_policy("embedded:arithmetic", torch.device("cpu"))
    parts = {
        "model": policy.model,
        "processing_class": policy.tokenizer,
        "reward_funcs": answer_length,
        "train_dataset": Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
        "rollout_func": InProcessRollouts(),
        **parts,
    }
    trainer = DRPOTrainer(args=config, **parts)
    trainer.remove_callback(PrinterCallback)
    return trainer
