"""The TRL recipe: really run on the CPU, on GSM8K-like problems that the embedded model can learn."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

import drpo
from drpo.errors import ConfigError, DataError
from drpo.host_runs import compose, load_recipe
from drpo.integrations.trl.gsm8k import dry_run, exact_number, parse, read_problems

NAME = "trl/qwen3-0.6b-gsm8k"
MODEL = Path(drpo.__file__).parent / "assets" / "arithmetic"
PROBLEMS = [
    {
        "question": f"State the final answer to the following arithmetic problem: {a} + {b} =",
        "answer": f"{a} and {b} make {a + b}.\n#### {a + b}",
    }
    for a in range(2, 10)
    for b in range(1, 9)
]


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    return file


def tiny(file: Path, out: Path) -> list[str]:
    """What makes the recipe small enough for a CPU."""
    return [
        f"model={MODEL}",
        f"train_data={file}",
        f"eval_data={file}",
        "eval_problems=4",
        "data_config=null",
        "instruction=''",
        "use_vllm=false",
        "use_cpu=true",
        "bf16=false",
        "max_completion_length=32",
        "learning_rate=3e-4",
        "max_steps=40",
        "eval_steps=20",
        "per_device_eval_batch_size=32",
        "num_generations=8",
        "save_strategy=no",
        "disable_tqdm=true",
        f"output_dir={out}",
    ]


def rewards(output: str) -> list[float]:
    return [float(found) for found in re.findall(r"'reward': '?([0-9.e-]+)", output)]


def test_the_recipe_runs_and_learns(jsonl: Path, tmp_path: Path):
    out = tmp_path / "model"
    changes = [part for change in tiny(jsonl, out) for part in ("--set", change)]
    done = subprocess.run(
        [sys.executable, "-m", "drpo", "recipe", "launch", NAME, *changes, "--set", "delta=0.2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    curve = rewards(done.stdout)
    assert len(curve) == 20, "a line for every rollout batch of two updates"
    assert sum(curve[-5:]) / 5 > sum(curve[:3]) / 3 + 0.1, curve
    assert "eval_reward" in done.stdout
    assert (out / "model.safetensors").stat().st_size != 0


def test_accelerate_launches_it_too(jsonl: Path, tmp_path: Path):
    plan = compose(load_recipe(NAME), "grpo", [*tiny(jsonl, tmp_path / "model"), "max_steps=2", "eval_strategy=no"])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--cpu",
            "--num_processes=1",
            "-m",
            "drpo.integrations.trl.gsm8k",
            *plan.arguments,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(rewards(done.stdout)) == 1


@pytest.mark.parametrize("objective", list(load_recipe(NAME).objectives))
def test_trl_accepts_the_recipe_with_every_objective(objective: str):
    answer = dry_run(compose(load_recipe(NAME), objective).arguments)
    assert "error" not in answer, answer
    assert "64 responses in groups of 8" in "".join(answer["validated"])


def test_the_settings_reach_trl():
    plan = compose(load_recipe(NAME), "drpo", ["use_cpu=true"])
    problems, config = parse(plan.arguments)
    assert (problems.model, problems.train_data, problems.data_config) == ("Qwen/Qwen3-0.6B", "openai/gsm8k", "main")
    assert config.chat_template_kwargs == {"enable_thinking": False}
    assert config.objective_parameters == {"delta": 0.15}
    assert (config.learning_rate, config.scale_rewards, config.beta) == (1e-6, "none", 0.0)
    assert config.horizon == 512


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["learning_rat=1e-6"], "Did you mean 'learning_rate'?"),
        (["delta=-1"], "delta must be"),
        (["epsilon=0.3"], "epsilon=0.3 is not used by DRPOTrainer"),
        (["objective_parameters.detla=1"], "has no parameter 'detla'"),
        (["num_generations=7"], "the number of generations"),
        (["train_data=null"], "train_data is not set"),
    ],
)
def test_a_broken_recipe_is_refused(changes: list[str], words: str):
    answer = dry_run(compose(load_recipe(NAME), "drpo", changes).arguments)
    assert words in answer["error"]


def test_parquet_and_what_is_wrong_with_a_file(tmp_path: Path):
    file = tmp_path / "problems.parquet"
    datasets.Dataset.from_list(PROBLEMS).to_parquet(file)
    assert read_problems(str(file), "train", None)[0]["answer"] == PROBLEMS[0]["answer"]
    for name, rows, words in (
        ("a.jsonl", [{"prompt": "1", "answer": "#### 1"}], "no column question"),
        ("b.jsonl", [PROBLEMS[0], {"question": "?", "answer": "unknown"}], "row 2: the answer 'unknown'"),
    ):
        wrong = tmp_path / name
        wrong.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(DataError, match=words):
            read_problems(str(wrong), "train", None)
    with pytest.raises(DataError, match="does not exist"):
        read_problems(str(tmp_path / "missing.jsonl"), "train", None)


def test_a_missing_file_is_one_message_and_exit_code_2(tmp_path: Path):
    plan = compose(load_recipe(NAME), "drpo", tiny(tmp_path / "missing.jsonl", tmp_path / "out"))
    done = subprocess.run([sys.executable, "-m", plan.module, *plan.arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.rstrip().splitlines()[-1].startswith("error: ") and "does not exist" in done.stderr


def test_the_reward_reads_chats_and_plain_text():
    chat = [{"role": "assistant", "content": "so #### 7"}]
    assert exact_number([chat, "8", ""], ["#### 7", "#### 7", "#### 7"]) == [1.0, 0.0, 0.0]


def test_what_is_not_key_value():
    with pytest.raises(ConfigError, match="not key=value"):
        parse(["learning_rate"])
