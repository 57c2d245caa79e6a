"""Run directories without a trainer: made up, but shaped like real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from drpo.run_directory import SHIFT_EDGES, WEIGHT_EDGES, RunDirectory

DELTA = 0.15


def config(steps: int, updates: int) -> dict[str, Any]:
    """A resolved configuration."""
    return {
        "model": "Qwen/Qwen3-0.6B-Base",
        "task": {"name": "countdown", "numbers": 4, "largest": 60},
        "objective": {"name": "drpo", "delta": DELTA, "deadzone": 0.0, "advantage_weighted": True},
        "steps": steps,
        "seed": 3,
        "prompts_per_step": 32,
        "group_size": 8,
        "updates_per_step": updates,
        "learning_rate": 3e-4,
        "temperature": 1.0,
        "max_new_tokens": 96,
        "eval": {"every": 10, "samples": 2},
    }


def manifest(**changes: Any) -> dict[str, Any]:
    """A finished run's manifest."""
    return {
        "status": "finished",
        "seed": 3,
        "device": "cpu",
        "versions": {"drpo": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "command": ["drpo", "train", "countdown.yaml", "objective.delta=0.15", "--out", "runs/count down"],
        "started": "2026-08-03T10:00:00+00:00",
        "finished": "2026-08-03T10:07:42+00:00",
        **changes,
    }


def update_record(step: int, update: int, steps: int, rng: np.random.Generator) -> dict[str, Any]:
    """One update of a run that learns, its policy moving a little further with each update of a step."""
    done = step / steps
    behavior = rng.beta(0.9, 0.35, 600)
    shift = np.clip(
        rng.normal(0, 0.015 + 0.035 * update * (1 + done), 600) * 2 * np.sqrt(behavior * (1 - behavior)),
        -behavior,
        1 - behavior,
    )
    shift += rng.normal(0, 1e-5, 600)
    distance = np.abs(shift)
    positive = rng.random(600) < 0.5
    weight = 1 - np.where(positive, 1, -1) * np.sign(shift) * distance / DELTA
    log_ratio = np.clip(np.log(np.clip(behavior + shift, 1e-6, 1)) - np.log(np.clip(behavior, 1e-6, 1)), -12, 12)
    ratio = np.exp(log_ratio)
    accuracy = 0.04 + 0.62 / (1 + np.exp(-9 * (done - 0.45))) + rng.normal(0, 0.025)
    record = {
        "kind": "update",
        "step": step,
        "update": update,
        "loss": rng.normal(0, 0.01),
        "reward": 0.9 * accuracy + 0.1,
        "accuracy": max(accuracy, 0.0),
        "response_length": 62 - 25 * done + rng.normal(0, 1.5),
        "truncated_share": max(0.0, 0.22 - 0.2 * done + rng.normal(0, 0.01)),
        "failed_rewards": 0,
        "entropy": 1.3 * np.exp(-1.8 * done) + rng.normal(0, 0.02),
        "ratio": ratio.mean(),
        "ratio_min": ratio.min(),
        "ratio_max": ratio.max(),
        "shift": distance.mean(),
        "shift_p99": np.quantile(distance, 0.99),
        "shift_max": distance.max(),
        "beyond_delta": (distance > DELTA).mean(),
        "beyond_delta_positive": (distance > DELTA)[positive].mean(),
        "beyond_delta_negative": (distance > DELTA)[~positive].mean(),
        "weight": weight.mean(),
        "corrective_share": (weight < 0).mean(),
        "masked_share": 0.0,
        "corrective_mass": ratio[weight < 0].sum() / ratio.sum(),
        "masked_mass": 0.0,
        "others": {
            "ppo": {"masked_mass": float(((np.abs(ratio - 1) > 0.2) & (distance > 0.01)).mean())},
            "spo": {"corrective_mass": float(((np.abs(ratio - 1) > 0.2) & (distance > 0.02)).mean())},
            "drpo": {"corrective_mass": float(ratio[weight < 0].sum() / ratio.sum())},
        },
        "mismatch": np.abs(log_ratio).mean(),
        "mismatch_p95": np.quantile(np.abs(log_ratio), 0.95),
        "mismatch_max": np.abs(log_ratio).max(),
        "k3_kl": (ratio - 1 - log_ratio).mean(),
        "rare_share": (behavior <= 0.01).mean(),
        "saturated_share": 0.0,
        "gradient_norm": float(np.exp(rng.normal(-1.2 + done, 0.3))),
        "learning_rate": 3e-4,
        "tokens": 3100,
        "sequences": 64,
        "delta": DELTA,
        "histograms": {"shift": counts(distance, SHIFT_EDGES), "weight": counts(weight, WEIGHT_EDGES)},
        "timing": {
            "sampling": 3.1 + rng.normal(0, 0.2) if update == 0 else 0.0,
            "grading": 0.12 if update == 0 else 0.0,
            "training": 0.62 + rng.normal(0, 0.05),
            "tokens_per_second": 2100 + rng.normal(0, 90),
        },
    }
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in record.items()}


def counts(values: np.ndarray, edges: tuple[float, ...]) -> list[int]:
    """Tokens per bin, the outermost bins holding what lies beyond."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist()


def evaluation_record(step: int, correct: int, samples: int = 200) -> dict[str, Any]:
    """One evaluation."""
    return {
        "kind": "evaluation",
        "step": step,
        "accuracy": correct / samples,
        "correct": correct,
        "samples": samples,
        "examples": samples // 2,
        "reward": 0.1 + 0.9 * correct / samples,
        "response_length": 50.0,
        "truncated_share": 0.1,
        "timing": {"seconds": 2.5},
    }


def sampled(prompt: str, text: str, reward: float = 0.0, answer: str = "3 * 8") -> dict[str, Any]:
    """One sampled response."""
    return {"prompt": prompt, "answer": answer, "text": text, "reward": reward, "stop_reason": "eos"}


def make_run(
    path: Path,
    steps: int = 8,
    updates: int = 2,
    every: int = 4,
    planned: int | None = None,
    **manifest_changes: Any,
) -> RunDirectory:
    """A run that recorded ``steps`` of ``planned`` steps and evaluated every ``every`` of them (0: never)."""
    planned = planned or max(steps, 1)
    run = RunDirectory(path)
    run.create(config(planned, updates), manifest(**manifest_changes))
    rng = np.random.default_rng(0)
    for step in range(steps + 1):
        if step:
            for update in range(updates):
                run.append_metrics(update_record(step, update, planned, rng))
        if every and step % every == 0:
            run.append_metrics(evaluation_record(step, round(9 + 120 * step / planned)))
            run.write_rollouts(
                "evaluation",
                step,
                [
                    sampled(
                        f"Reach {24 + i} with the numbers 3, 8, 1 and {i}.",
                        f"<think>{'Let me try 3 * 8. ' * (4 + i)}</think>\n<answer>3 * 8 + {i}</answer>"
                        if step
                        else f"The numbers are 3 and 8 and {'the ' * 40}",
                        float(step > 0 and i % 3 != 0),
                    )
                    for i in range(8)
                ],
            )
    return run
