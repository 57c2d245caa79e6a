"""Recipes for `drpo train`: parsed, dry-run at the real models' sizes, run with stand-ins for model and data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_memory import SIZES, directory
from typer.testing import CliRunner

from drpo.cli.app import app
from drpo.recipe_files import ROOT
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.loop import train

pytestmark = pytest.mark.slow

RECIPES = {"qwen3-0.6b-gsm8k": "0.6B", "qwen3-1.7b-dapo-math": "1.7B"}
#: A record of each layout, as the data sets have it.
GSM8K = {"question": "ab", "answer": "It is ab.\n#### 4"}
DAPO = {
    "data_source": "math_dapo",
    "ability": "MATH",
    "extra_info": {"index": "0"},
    "prompt": [
        {
            "role": "user",
            "content": "Solve the following math problem step by step. The last line of your "
            "response should be of the form Answer: $Answer (without quotes) where $Answer is the answer to the "
            'problem.\n\nab\n\nRemember to put your answer on its own line after "Answer:".',
        }
    ],
    "reward_model": {"ground_truth": "4", "style": "rule-lighteval/MATH_v2"},
}


def test_every_recipe_for_train_is_listed_here() -> None:
    elsewhere = ["smollm2-sums"]  # tests/smollm2
    assert sorted(file.stem for file in ROOT.glob("*.yaml")) == sorted([*RECIPES, *elsewhere])


def test_the_list_names_them_as_they_are_run() -> None:
    shown = CliRunner().invoke(app, ["recipe", "list"])
    assert shown.exit_code == 0, shown.output
    for name in RECIPES:
        assert f"drpo train recipe:{name}\n    Qwen3-" in shown.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_it_parses_and_says_how_to_get_what_it_needs(name: str) -> None:
    file = ROOT / f"{name}.yaml"
    config, sources = load_config(file)
    assert sources["model"] == str(file) and config.make_objective().name == "drpo"
    text = file.read_text()
    assert f"--local-dir {config.model}" in text
    for path in (config.task.parameters["path"], config.task.parameters["heldout_path"]):
        assert any(f"--local-dir {folder}\n" in text for folder in map(str, Path(path).parents)), path


@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_at_the_real_size(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = load_config(ROOT / f"{name}.yaml")
    Path(config.model).parent.mkdir(parents=True)
    directory(Path(config.model), RECIPES[name])
    shown = CliRunner().invoke(app, ["train", str(ROOT / f"{name}.yaml"), "--dry-run"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert f"{SIZES[RECIPES[name]][1]:,} parameters" in shown.stdout and "peak, training" in shown.stdout


def shorter(name: str, copyist: Path) -> list[str]:
    """What makes a run of it small, and sampled without vLLM; everything else is the recipe's."""
    return [
        "sampler=in_process",
        "steps=1",
        "prompts_per_step=2",
        "group_size=2",
        "updates_per_step=2",
        "max_new_tokens=3",
        "eval_examples=2",
        "device=cpu",
        f"model={copyist}",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_it_runs_with_stand_ins(name: str, tmp_path: Path, copyist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("math_verify", reason="pip install -e '.[math]'")
    if "1.7b" in name:
        pytest.importorskip("peft", reason="pip install -e '.[lora]'")
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    stand_in = tmp_path / "model"
    shutil.copytree(copyist, stand_in)
    settings = json.loads((stand_in / "config.json").read_text())
    (stand_in / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 4096}))
    config, _ = load_config(ROOT / f"{name}.yaml", shorter(name, stand_in))
    for key, words in (("path", "abcd"), ("heldout_path", "cdab")):
        file = Path(config.task.parameters[key])
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.Table.from_pylist([record(name, key + word) for word in words]), file)
    run = RunDirectory(tmp_path / "run")
    assert train(config, run).status == "finished"
    (prompt, *_) = [row["prompt"] for row in run.read_rollouts("step")[1]]
    assert prompt.startswith("Problem:\n") and "Remember" not in prompt


def record(name: str, problem: str) -> dict[str, Any]:
    text = json.dumps(GSM8K if "gsm8k" in name else DAPO)
    return json.loads(text.replace('"ab"', f'"{problem}"').replace("\\n\\nab\\n\\n", f"\\n\\n{problem}\\n\\n"))
