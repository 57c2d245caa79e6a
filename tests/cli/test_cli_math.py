"""The math task from the command line: train, evaluate, filter, on a real (tiny) model and real files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_cli import drpo, refused

from drpo.tasks.kinds.math import MathTask
from drpo.train.pass_rates import pass_rates
from support import tiny

pytest.importorskip("math_verify", reason="pip install -e '.[math]'")

pytestmark = pytest.mark.slow

NUMBERS = [f"{a}{b}" for a in "1234" for b in "1234"]
#: The model repeats a number, and math-verify finds it without a box.
TASK = ["task=math", "task.prompt_style=bare", "task.require_box=false"]
SMALL = ["max_new_tokens=4", "device=cpu", "prompts_per_step=4", "grading_workers=1"]


@pytest.fixture(scope="module")
def calculator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that repeats each of two digits rightly in five of eight cases."""
    return tiny.save_copyist(tmp_path_factory.mktemp("models") / "calculator", alphabet="1234")


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("problems") / "numbers.jsonl"
    # 99 has a digit that the model never learned to write, and 0 is no answer to 11.
    answers = {**{number: number for number in NUMBERS}, "99": "99", "11": "0"}
    file.write_text("".join(json.dumps({"problem": text, "answer": right}) + "\n" for text, right in answers.items()))
    return file


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_filter_train_and_evaluate(calculator: Path, problems: Path, tmp_path: Path) -> None:
    kept = tmp_path / "sometimes.jsonl"
    result = drpo(
        "filter",
        calculator,
        *TASK,
        f"task.path={problems}",
        "task.heldout_fraction=0.05",
        *SMALL,
        "--out",
        kept,
        "--samples",
        12,
    )
    assert result.returncode == 0, result.stderr
    assert "16 of 16 problems" in result.stdout
    records = lines(kept)
    found = {record["prompt"]: record["pass_rate"] for record in records}
    assert not {"99", "11"} & found.keys() and len(found) >= 12
    assert all(0 < rate < 1 and abs(12 * rate - round(12 * rate)) < 1e-9 for rate in found.values())
    assert all(record["samples"] == 12 and record["answer"] == record["prompt"] for record in records)
    assert re.search(rf"{len(found)} of 16 problems .*0% and 100% \(12 responses", result.stdout)
    assert re.search(r"never solved \d, always \d, .*graded.* 0", result.stdout)

    task = MathTask(path=kept, prompt_style="bare")
    assert {e.prompt for e in [*task.training_examples(), *task.heldout_examples(9)]} == found.keys()

    run = tmp_path / "run"
    settings = [*TASK, f"task.path={kept}", f"task.heldout_path={problems}"]
    refusal = refused(drpo("train", f"model={calculator}", *settings, "--out", run))
    assert "leaves no training problem" in refusal
    settings[-1] = "task.heldout_fraction=0.4"
    result = drpo(
        "train",
        f"model={calculator}",
        *settings,
        *SMALL,
        "steps=2",
        "group_size=4",
        "updates_per_step=2",
        "eval_samples=5",
        "--out",
        run,
    )
    assert result.returncode == 0, result.stderr
    last = lines(run / "metrics.jsonl")[-1]

    result = drpo("eval", run, "--json")
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert {key: record[key] for key in ("accuracy", "avg_at_k", "pass_at_k")} == {
        key: last[key] for key in ("accuracy", "avg_at_k", "pass_at_k")
    }

    rewards: dict[str, list[float]] = {}
    for sample in lines(next((run / "rollouts").glob("*evaluation*2.jsonl"))):
        rewards.setdefault(sample["prompt"], []).append(sample["reward"])
    counts = [(len(values), sum(value >= 1 for value in values)) for values in rewards.values()]
    assert len(counts) >= 4 and all(n == 5 for n, _ in counts) and len(set(counts)) > 1
    assert record["pass_at_k"] == pass_rates(counts, 5)["pass_at_k"]
    assert record["pass_at_k"].keys() == {"1", "2", "4"} and record["avg_at_k"]["k"] == 5
    assert record["avg_at_k"]["mean"] == pytest.approx(record["accuracy"])

    shown = drpo("eval", run).stdout
    average = record["avg_at_k"]
    assert (
        f"avg@5 {average['mean']:.3f}  95 % confidence interval {average['low']:.3f} to {average['high']:.3f}, over "
        f"{len(counts)} problems"
    ) in shown
    assert re.search(r"pass@2 0\.\d+  95 % .*\npass@4 [01]\.\d+", shown) and "pass@1 " not in shown
    page = (run / "report.html").read_text()
    assert re.search(r"After step 2: pass@2 [\d.]+ % \([\d.]+ % to [\d.]+ %\), pass@4", page)


def test_filter_bounds_and_the_first_problems(calculator: Path, problems: Path, tmp_path: Path) -> None:
    kept = tmp_path / "never.jsonl"
    result = drpo(
        "filter",
        calculator,
        *TASK,
        f"task.path={problems}",
        *SMALL,
        "--out",
        kept,
        "--samples",
        2,
        "--below",
        "0.5",
        "--above",
        "0.1",
        "--problems",
        3,
    )
    assert re.search(r"error: .*--samples 2 .*pass rate .*0\.1 and 0\.5", refused(result))
    result = drpo(
        "filter",
        calculator,
        *TASK,
        f"task.path={problems}",
        *SMALL,
        "--out",
        kept,
        "--samples",
        4,
        "--below",
        "0.3",
        "--problems",
        3,
    )
    assert result.returncode == 0, result.stderr
    assert "3 of 3 problems" in result.stdout
    assert all(record["pass_rate"] == 0.25 for record in lines(kept))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=copy", "--out", "new"], "task copy has no list of training problems"),
        ([*TASK, "task.path={problems}", "--out", "{problems}"], "numbers.jsonl exists. Choose another file"),
        ([*TASK, "task.path={problems}", "--out", "absent/new"], "cannot write to absent/new: No such file"),
        ([*TASK, "task.path={problems}", "--out", "new", "--above", "0.5", "--below", "0.5"], "--above 0.5 must be"),
    ],
)
def test_filter_refuses(calculator: Path, problems: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [argument.format(problems=problems) for argument in arguments]
    assert message in refused(drpo("filter", calculator, *SMALL, *given, cwd=tmp_path))
    assert not (tmp_path / "new").exists()
