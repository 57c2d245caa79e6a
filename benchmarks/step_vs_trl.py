"""One training step of ours against one of TRL's GRPOTrainer, on the same work, side by side.

    make bench        # or: .venv/bin/python benchmarks/step_vs_trl.py

Same model (the shipped 0.8 M-parameter base), same 16 prompts × 8 responses of at most 64 tokens, float32, one
optimizer step, the same reward function's result. A step is everything from sampling to the optimizer: generation,
decoding, grading, advantages, forward, backward, update, metrics. The learning rate is 1e-9 so that response lengths
stay the same throughout. The two take turns in blocks; the figures are medians over the steps after warm-up.
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

import torch

from drpo.run_directory import RunDirectory
from drpo.tasks import make_task
from drpo.tasks.grading import Grader
from drpo.train.config import TrainConfig, load_config
from drpo.train.loop import Trainer
from drpo.train.observer import Observer
from drpo.train.policy import load_policy

WARM_UP = 2


def our_steps(config: TrainConfig, steps: int, folder: Path) -> list[dict[str, float]]:
    """Seconds and response tokens of each of our steps."""
    run = RunDirectory(folder)
    run.create(config.as_dict(), {})
    trainer = Trainer(config, run, Observer(), resume=False)
    measured = []
    with Grader(trainer.task, config.grading_time_limit) as trainer.grader:
        for step in range(1, WARM_UP + steps + 1):
            started = time.perf_counter()
            rollout = trainer.roll_out(step)
            trainer.update(rollout, step)
            seconds = time.perf_counter() - started
            tokens = sum(len(sample.response.token_ids) for sample in rollout.samples)
            measured.append({"seconds": seconds, "tokens": tokens, "sampling": rollout.sampling_seconds})
    return measured[WARM_UP:]


def trl_steps(config: TrainConfig, steps: int, folder: Path) -> list[dict[str, float]]:
    """Seconds and response tokens of each of TRL's steps."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    task = make_task(config.task.name, **config.task.parameters)
    policy = load_policy(config.model, torch.device("cpu"))
    examples = [task.training_example(0, i) for i in range(config.prompts_per_step * (WARM_UP + steps))]
    by_prompt = {example.prompt + "\n": example for example in examples}
    measured: list[dict[str, float]] = []

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [task.reward(by_prompt[p], text) for p, text in zip(prompts, completions, strict=True)]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            measured.append({"seconds": time.perf_counter() - self.started, "tokens": float("nan")})

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "completions/mean_length" in logs:
                measured[-1]["tokens"] = logs["completions/mean_length"] * args.per_device_train_batch_size

    responses = config.prompts_per_step * config.group_size
    settings = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=responses, num_generations=config.group_size,
        gradient_accumulation_steps=1, steps_per_generation=1, num_iterations=1, max_steps=WARM_UP + steps,
        max_completion_length=config.max_new_tokens, temperature=config.temperature, top_p=1.0, top_k=0, beta=0.0,
        learning_rate=config.learning_rate, lr_scheduler_type="constant", use_cpu=True, bf16=False,
        gradient_checkpointing=False, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_num_workers=0, seed=0, loss_type="dr_grpo", scale_rewards="none",
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=policy.model, processing_class=policy.tokenizer, reward_funcs=reward, args=settings,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in by_prompt]), callbacks=[Clock()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return measured[WARM_UP:]


def main() -> None:
    """Measure in turns, print the table, and keep it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="measured steps in a block")
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    settings = ["updates_per_step=1", "learning_rate=1e-9", "device=cpu", "max_new_tokens=64", "task.max_digits=2"]
    config, _ = load_config(None, settings)
    ours: list[dict[str, float]] = []
    trl: list[dict[str, float]] = []
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for block in range(arguments.rounds):
            mine = our_steps(config, arguments.steps, Path(folder) / f"ours-{block}")
            theirs = trl_steps(config, arguments.steps, Path(folder) / f"trl-{block}")
            medians = [statistics.median(step["seconds"] for step in steps) for steps in (mine, theirs)]
            ratios.append(medians[0] / medians[1])
            ours += mine
            trl += theirs
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "steps": len(ours), "ratios_by_block": ratios}
    for name, steps in (("drpo", ours), ("trl", trl)):
        seconds = [step["seconds"] for step in steps]
        figures[name] = {
            "median_seconds": statistics.median(seconds), "min_seconds": min(seconds), "max_seconds": max(seconds),
            "mean_tokens": statistics.fmean(step["tokens"] for step in steps),
        }
        print(f"{name:5s} step: median {figures[name]['median_seconds']:.3f} s (min {min(seconds):.3f}, max "
              f"{max(seconds):.3f}), {figures[name]['mean_tokens']:.0f} response tokens")
    figures["sampling_share"] = sum(s["sampling"] for s in ours) / sum(s["seconds"] for s in ours)
    figures["ratio"] = figures["drpo"]["median_seconds"] / figures["trl"]["median_seconds"]
    print(f"ratio drpo / trl: {figures['ratio']:.3f} (blocks: {', '.join(f'{ratio:.3f}' for ratio in ratios)}); "
          f"sampling is {figures['sampling_share']:.0%} of our step")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
