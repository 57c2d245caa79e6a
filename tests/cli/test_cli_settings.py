"""What people type in the place of a setting, each answered with what to type."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.outcomes import run_command

pytestmark = pytest.mark.slow

SUMS = "".join(json.dumps({"prompt": f"{i} + {i} =", "answer": str(2 * i)}) + "\n" for i in range(20))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--steps", "5"], "Type steps=5"),
        (["train", "--steps=5"], "Type steps=5"),
        (["train", "steps=1", "--max-new-tokens", "7"], "Type max_new_tokens=7"),
        (["train", "--model", "my model"], "Type 'model=my model'"),
        (["train", "--task.path=x.jsonl"], "Type task.path=x.jsonl"),
        (["train", "--lr", "1e-4"], "Here it is learning_rate"),
        (["train", "--dryrun"], "Did you mean '--dry-run'"),
        (["train", "--resum", "run1"], "Did you mean '--resume'"),
        (["train", "-x"], "No such option: -x"),
        (["eval", "embedded:arithmetic", "--eval_samples", "8"], "Type eval_samples=8"),
        (["eval", "--model", "x"], "Type model=x"),
        (["filter", "embedded:arithmetic", "--out", "o.jsonl", "--task", "math"], "Type task=math"),
        (["train", "lr=1e-4"], "unknown key 'lr'. Here it is learning_rate"),
        (["train", "task.path=sums.jsonl"], "task=jsonl"),
        (["train", "task=copy", "task.path=sums.jsonl"], "Type task=jsonl or task=math beside task.path=sums.jsonl"),
        (["train", "steps=3", "steps.x=1"], "another override"),
        (["train", "seed=" + "9" * 5000], "a whole number of 5000 characters"),
    ],
)
def test_mistyped_settings(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, said, problem = run_command(arguments)
    assert (status, problem) == (2, None) and expected in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sums.jsonl", SUMS, "Type task=jsonl task.path=sums.jsonl"),
        ("my sums.jsonl", SUMS, "Type task=jsonl 'task.path=my sums.jsonl'"),
        ("math.jsonl", SUMS.replace('"prompt"', '"problem"'), "Type task=math task.path=math.jsonl"),
        ("broken.jsonl", "{", "Type task=jsonl task.path=broken.jsonl"),
        ("empty.csv", "", "Type task=jsonl task.path=empty.csv"),
    ],
)
def test_a_data_file_in_the_place_of_a_configuration(
    name: str, text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    status, said, problem = run_command(["train", name, "steps=5"])
    assert (status, problem) == (2, None) and f"{name} is a data file" in said and expected in said


def test_the_real_command_refuses_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drpo", "train", "learning_rate=2020-99-99", f"model={'x' * 100_000}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(done.stderr) < 3000
    assert done.stderr.startswith("error: learning_rate") and list(tmp_path.iterdir()) == []
