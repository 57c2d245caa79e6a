"""recipe:smollm2-sums: dry-run at the real model's size, run with a stand-in for the model; and the demo around it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drpo.cli.app import app
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.outcome import Outcome
from examples.smollm2.model import MODEL
from tools import ROOT

pytestmark = pytest.mark.slow

RECIPE = "recipe:smollm2-sums"
#: Of the converted model.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
SMALL = ["steps=1", "prompts_per_step=2", "group_size=2", "updates_per_step=2", "max_new_tokens=3", "eval_examples=2"]


@pytest.fixture
def clone(tmp_path: Path, copyist: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory where the model that the recipe names is a tiny one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(copyist, tmp_path / MODEL)
    return tmp_path


def test_a_dry_run_at_the_real_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MODEL.mkdir(parents=True)
    (MODEL / "config.json").write_text(json.dumps(CONFIG))
    shown = CliRunner().invoke(app, ["train", RECIPE, "--dry-run"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "134,515,008 parameters" in shown.stdout
    (peak,) = [float(line.split()[2]) for line in shown.stdout.splitlines() if line.startswith("peak, training")]
    assert peak < 6


def test_it_names_the_model_that_the_demo_makes() -> None:
    config, _ = load_config(Path(RECIPE))
    assert Path(config.model) == MODEL and config.log_tokens is True
    assert config.eval_examples == 64 and config.task.name == "sums"


def test_the_demo_ends_with_what_happened_and_both_pages(clone: Path) -> None:
    done = demo(clone, *SMALL, "--out", "run")
    assert done.returncode == 0, done.stderr
    run = RunDirectory(clone / "run")
    *_, outcome, answers, tokens = done.stdout.splitlines()
    assert outcome == Outcome(**run.read_manifest()["outcome"]).text and outcome.startswith("Held-out accuracy")
    assert answers.endswith(" run/report.html") and "Responses" in run.report_file.read_text()
    assert tokens.endswith(" run/inspection.html") and run.inspection_file.is_file()


def test_the_demo_ends_where_a_command_fails(clone: Path) -> None:
    done = demo(clone, "steps=0", "--out", "run")
    assert done.returncode == 2 and "steps" in done.stderr and "Traceback" not in done.stderr
    assert not (clone / "run").exists() and "drpo inspect" not in done.stdout


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo, in a directory with a model."""
    program = [sys.executable, "-m", "examples.smollm2", *arguments]
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.run(program, cwd=folder, env={**os.environ, **path}, capture_output=True, text=True)
