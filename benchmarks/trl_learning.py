"""Does DRPOTrainer learn the demo as `drpo train` does? Both learning curves, for the same seeds.

    .venv/bin/python benchmarks/trl_learning.py --seeds 0 1 2 --json trl_learning.json     # after `make test-trl`

Same base model, problems, 16 prompts × 8 responses a step, four updates a rollout batch, AdamW, rate, clipping and
aggregation; accuracy before and after is measured by the project's own evaluation on the same held-out problems with
the same sampling seeds. What differs is everything else: TRL's trainer, its data loading, advantages and shuffling, and
the random numbers that training samples with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from transformers import PrinterCallback

from drpo.integrations.trl import DRPOConfig, DRPOTrainer, InProcessRollouts
from drpo.model.policy import Policy, load_policy
from drpo.rollouts import InProcessSampler
from drpo.run_directory import RunDirectory
from drpo.tasks import make_task
from drpo.tasks.base import Task
from drpo.tasks.grading.grader import Grader
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.evaluate import evaluate
from drpo.train.loop import train


def native_curve(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """`drpo train`: reward of each step, held-out accuracy before and after."""
    started = time.perf_counter()
    run = RunDirectory(folder)
    summary = train(config, run)
    steps: dict[int, list[tuple[float, int]]] = {}
    for record in run.read_metrics("update"):
        steps.setdefault(record["step"], []).append((record["reward"], record["sequences"]))
    rewards = [sum(r * n for r, n in parts) / sum(n for _, n in parts) for _, parts in sorted(steps.items())]
    return {
        "rewards": rewards,
        "before": summary.accuracy_before,
        "after": summary.accuracy_after,
        "seconds": time.perf_counter() - started,
    }


def trl_curve(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """The same run by DRPOTrainer."""
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    task = make_task(config.task.name, **config.task.parameters)
    policy = load_policy(config.model, torch.device("cpu"))
    before = heldout_accuracy(policy, task, config)
    trainer = make_trainer(policy, task, config, folder)
    trainer.train()
    policy.model.eval()
    history = trainer.state.log_history
    rewards = [entry["reward"] for entry in history if "reward" in entry]
    stale = [entry["drpo/mismatch"] for entry in history if entry.get("drpo/staleness")]
    return {
        "rewards": rewards,
        "before": before,
        "after": heldout_accuracy(policy, task, config),
        "start_mismatch_max": history[0]["drpo/start_mismatch_max"],
        "stale_mismatch": statistics.fmean(stale),
        "seconds": time.perf_counter() - started,
    }


def make_trainer(policy: Policy, task: Task, config: TrainConfig, folder: Path) -> DRPOTrainer:
    """DRPOTrainer with the settings of ``config``."""
    examples = [task.training_example(config.seed, i) for i in range(config.prompts_per_step * config.steps)]
    responses = config.prompts_per_step * config.group_size

    def reward(completions: list[str], row: list[int], **_: Any) -> list[float]:
        return [task.reward(examples[i], text) for i, text in zip(row, completions, strict=True)]

    settings = DRPOConfig(
        output_dir=str(folder),
        objective=config.objective.name,
        objective_parameters=config.objective.parameters,
        aggregation=config.aggregation,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
        num_generations=config.group_size,
        per_device_train_batch_size=responses // config.updates_per_step,
        gradient_accumulation_steps=1,
        steps_per_generation=config.updates_per_step,
        scale_rewards="none",
        max_steps=config.steps * config.updates_per_step,
        shuffle_dataset=False,
        seed=config.seed,
        max_grad_norm=config.gradient_clip,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    # TRL would leave biases and norms out of the weight decay.
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    trainer = DRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=reward,
        args=settings,
        train_dataset=Dataset.from_list(
            [{"prompt": example.prompt + "\n", "row": i} for i, example in enumerate(examples)]
        ),
        optimizers=(optimizer, None),
        rollout_func=InProcessRollouts(),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def heldout_accuracy(policy: Policy, task: Task, config: TrainConfig) -> float:
    """As `drpo train` measures it."""
    sampler = InProcessSampler(policy.model, policy.stop_ids)
    with Grader(task, config.grading_time_limit) as grader:
        record, _ = evaluate(
            policy,
            sampler,
            grader,
            task.heldout_examples(config.eval_examples),
            config.eval_samples,
            config.sampling(),
            config.seed,
        )
    return record["accuracy"]


def main() -> None:
    """Run both for every seed, print the curves side by side, and keep them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path, help="write the curves here")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            settings = [f"seed={seed}", f"steps={arguments.steps}", "device=cpu", "eval_every=0"]
            config, _ = load_config(None, settings)
            curves = {
                "drpo train": native_curve(config, Path(folder) / f"native-{seed}"),
                "DRPOTrainer": trl_curve(config, Path(folder) / f"trl-{seed}"),
            }
            found.append({"seed": seed, **curves})
            for name, curve in curves.items():
                show = "  ".join(
                    f"{statistics.fmean(curve['rewards'][i : i + 10]):.3f}" for i in range(0, arguments.steps, 10)
                )
                print(
                    f"seed {seed}  {name:12s} held-out {curve['before']:.3f} → {curve['after']:.3f}  reward by ten "
                    f"steps: {show}  ({curve['seconds']:.0f} s)",
                    flush=True,
                )
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
