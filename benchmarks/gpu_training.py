"""Training steps on one NVIDIA card: a Qwen3-shaped model of 126 M parameters, made from scratch, on the demo's task.

    PYTHONPATH=src python benchmarks/gpu_training.py                          # in bf16, on the GPU
    PYTHONPATH=src python benchmarks/gpu_training.py gradient_checkpointing=true lora.rank=16
    PYTHONPATH=src python benchmarks/gpu_training.py --device cpu --quick     # does every line run?

It needs torch, numpy, transformers, pydantic, pyyaml and packaging; reasoning-gym for the demo's task (without it: the
built-in copy task, and the record says so); peft for lora.*. Any other key=value is a setting of `drpo train`.

Sampling, grading and updates are the trainer's own. Weights are random and rewards would nearly all be 0, so that half
of the responses get the advantage +1 and half −1: every response then has a backward pass, as in a run that learns at
its fastest. The first step warms up and is not counted. Reported: tokens a second of sampling, of training and of both,
and the peak memory of each beside what the memory report said.

Without a CUDA device it says so and exits with 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import re
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from drpo.bench.record import describe, write
from drpo.model.source import embedded_directory
from drpo.run_directory import RunDirectory
from drpo.schema import numbered
from drpo.tasks.grading.grader import Grader
from drpo.train.config import TrainConfig, load_config
from drpo.train.loop import Trainer
from drpo.train.memory.report import size
from drpo.train.setup import build

FOLDER = Path(__file__).resolve().parents[1] / "results" / "bench"
SHAPE = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 10,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 4096,
}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
WORK = ["prompts_per_step=32", "group_size=8", "updates_per_step=4", "max_new_tokens=512"]
TINY_WORK = ["prompts_per_step=2", "group_size=2", "updates_per_step=2", "max_new_tokens=8"]


def main() -> int:
    """Measure, print a line a step, and write the record; 2 where there is nothing to measure on."""
    arguments = parse_arguments()
    device = arguments.device
    if device == "cpu" and not arguments.quick:
        return refuse("--device cpu is for --quick alone: 126 M parameters want a GPU.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        return refuse(
            "torch sees no CUDA device here. Run this on a machine with an NVIDIA card and a CUDA build of "
            "torch, or try it out with --device cpu --quick."
        )
    machine = describe(device)
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model", TINY if arguments.quick else SHAPE)
        config = configure(arguments, Path(folder) / "model")
        values = {
            "suite": "gpu_training",
            "command": shlex.join(["python", "benchmarks/gpu_training.py", *sys.argv[1:]]),
            "machine": machine,
            **measure(config, Path(folder) / "run", 2 if arguments.quick else arguments.steps),
        }
    record = numbered("bench", values)
    card = re.sub(r"[^a-z0-9]+", "-", str(machine.get("gpu", "cpu")).lower()).strip("-")
    file = arguments.json or FOLDER / f"gpu-training-{card}-{machine['date']}.json"
    write(file, record)
    print(f"written {file}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="key=value of `drpo train`")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=6, help="measured steps")
    parser.add_argument("--quick", action="store_true", help="a tiny model and two steps; the figures mean nothing")
    parser.add_argument("--json", type=Path, help="where to write; default: results/bench/gpu-training-CARD-DATE.json")
    return parser.parse_args()


def refuse(reason: str) -> int:
    """Say why nothing is measured."""
    print(f"error: {reason}", file=sys.stderr)
    return 2


def make_model(directory: Path, shape: dict[str, int]) -> None:
    """Random weights, and the shipped base's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_directory("arithmetic"))
    torch.manual_seed(0)
    names: dict[str, Any] = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, **shape}
    Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=True, **names)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def configure(arguments: argparse.Namespace, model: Path) -> TrainConfig:
    """The demo's configuration on that model; bf16 on a GPU."""
    task = [] if importlib.util.find_spec("reasoning_gym") else ["task=copy"]
    precision = ["precision=bf16"] if arguments.device != "cpu" else []
    return load_config(
        None,
        [
            f"model={model}",
            f"device={arguments.device}",
            "eval_examples=16",
            "eval_samples=1",
            *task,
            *precision,
            *(TINY_WORK if arguments.quick else WORK),
            *arguments.settings,
        ],
    )[0]


def measure(config: TrainConfig, folder: Path, steps: int) -> dict[str, Any]:
    """A step to warm up and ``steps`` more: what is trained, every step's figures, and their medians."""
    run = RunDirectory(folder)
    run.create(config.resolved(), {})
    parts = build(config)
    with Grader(parts.task, config.grading_time_limit, config.grading_workers) as grader:
        trainer = Trainer(config, run, parts, grader)
        rows = [measure_step(trainer, step) for step in range(1, steps + 2)][1:]
    rates = ("sampling_tokens_per_second", "training_tokens_per_second", "tokens_per_second")
    medians = {name: statistics.median(row[name] for row in rows) for name in rates}
    peaks = {name: max(row[name] for row in rows) for name in ("sampling_peak_bytes", "training_peak_bytes")}
    need = parts.memory.need
    for phase in ("sampling", "training"):
        print(f"peak of {phase}: {size(peaks[f'{phase}_peak_bytes'])}, reported before: {size(need.during(phase))}")
    return {
        "parameters": parts.policy.model.num_parameters(),
        "trained": sum(parameter.numel() for parameter in parts.policy.trained_parameters()),
        "settings": config.resolved(),
        "steps": rows,
        **medians,
        **peaks,
        "memory_report": parts.memory.as_dict(),
    }


def measure_step(trainer: Trainer, step: int) -> dict[str, Any]:
    """Sample, grade and update once, each with its time and its peak."""
    rollout, sampling, sampling_peak = timed(lambda: trainer.roll_out(step), trainer.parts.policy.device)
    signs = [1.0 if row % 2 else -1.0 for row in range(len(rollout.samples))]
    pushed = dataclasses.replace(rollout, advantages=signs)
    _, training, training_peak = timed(lambda: trainer.update(pushed, step), trainer.parts.policy.device)
    tokens = sum(len(sample.response.token_ids) for sample in rollout.samples)
    row = {
        "tokens": tokens,
        "sampling_seconds": rollout.sampling_seconds,
        "grading_seconds": rollout.grading_seconds,
        "training_seconds": training,
        "sampling_tokens_per_second": tokens / rollout.sampling_seconds,
        "training_tokens_per_second": tokens / training,
        "tokens_per_second": tokens / (sampling + training),
        "sampling_peak_bytes": sampling_peak,
        "training_peak_bytes": training_peak,
    }
    print(
        f"step {step}: {tokens:,} tokens, {row['sampling_tokens_per_second']:,.0f} sampled a second, "
        f"{row['training_tokens_per_second']:,.0f} trained, {row['tokens_per_second']:,.0f} of both",
        flush=True,
    )
    return row


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float, int]:
    """What ``work`` gives, its seconds, and the highest memory meanwhile (on a CPU: of the process so far)."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    result = work()
    if not on_gpu:
        return result, time.perf_counter() - started, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.cuda.synchronize(device)
    return result, time.perf_counter() - started, torch.cuda.max_memory_allocated(device)


if __name__ == "__main__":
    sys.exit(main())
