"""`drpo recipe` as a user runs it, without verl or TRL: a stand-in shows what would be started."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drpo.host_runs import recipe_names
from support import command

pytestmark = pytest.mark.slow

STAND_IN = """
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "address": os.environ.get("RAY_ADDRESS")}))
sys.exit(7)
"""


def run(*arguments: str, cwd: Path | None = None, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {"PYTHONPATH": os.pathsep.join([str(path), *known])} if path else {}
    return command.run(["recipe", *arguments], cwd, environment)


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """A folder with stand-ins for verl, Ray and math-verify."""
    for name in (
        "verl/trainer/main_ppo.py",
        "verl/trainer/__init__.py",
        "verl/__init__.py",
        "math_verify.py",
        "ray/scripts/scripts.py",
        "ray/scripts/__init__.py",
        "ray/__init__.py",
    ):
        file = tmp_path / "hosts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(STAND_IN if file.name in ("main_ppo.py", "scripts.py") else "")
    return tmp_path / "hosts"


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """--set arguments that name existing data files and ask for no GPU."""
    files = [tmp_path / "train.parquet", tmp_path / "test.parquet"]
    for file in files:
        file.touch()
    changes = [f"data.train_files=[{files[0]}]", f"data.val_files={files[1]}", "trainer.n_gpus_per_node=0"]
    return [part for change in changes for part in ("--set", change)]


def test_list_shows_every_recipe():
    done = run("list")
    assert done.returncode == 0, done.stderr
    for name in recipe_names():
        assert name in done.stdout
    rows = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in rows] == recipe_names()
    row = next(row for row in rows if row["name"] == "verl/qwen3-30b-a3b-base")
    assert "drpo train recipe:settings/dense-bf16\n" in run("list").stdout
    assert row["gpus"] == 16 and 0 < row["assumed"] < row["settings"] and row["host"] == "verl"


def test_show_prints_a_script_that_bash_runs(tmp_path: Path, hosts: Path):
    done = run("show", "qwen3-30b-a3b-base-fp8", "--objective", "dppo_tv", "--set", "trainer.nnodes=1")
    assert done.returncode == 0, done.stderr
    assert "# assumed: the parallelism is not public" in done.stdout
    assert "# Not expressible in verl: " in done.stdout
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    ran = subprocess.run(
        ["bash"],
        input=done.stdout,
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(hosts)},
    )
    assert ran.returncode == 7, ran.stderr
    described = json.loads(
        run("show", "qwen3-30b-a3b-base-fp8", "--objective", "dppo_tv", "--set", "trainer.nnodes=1", "--json").stdout
    )
    arguments = json.loads(ran.stdout)["arguments"]
    assert ["python", "-m", "verl.trainer.main_ppo", *arguments] == described["command"]
    assert "+ray_kwargs.ray_init.runtime_env.env_vars.NVTE_FP8_BLOCK_SCALING_FP32_SCALES='1'" in arguments
    assert "data.train_files=[${oc.env:HOME}/data/dapo-math/train.parquet]" in arguments
    assert len(described["settings"]) == len(arguments)
    assert {setting["origin"] for setting in described["settings"]} == {"public", "assumed", "yours"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "verl/qwen3-4b-bas"], "Did you mean 'verl/qwen3-4b-base'?"),
        (["show", "verl/qwen3-4b-base", "--objective", "dpro"], "Did you mean 'drpo'?"),
        (["launch", "verl/qwen3-4b-base", "--set", "detla=1"], "Did you mean 'delta'?"),
        (["launch", "trl/qwen3-0.6b-gsm8k", "--address", "auto"], "Leave out --address and --submit"),
    ],
)
def test_mistakes_are_one_message_with_the_fix(arguments: list[str], words: str):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("verl") is not None, reason="verl is installed")
@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_without_verl_the_error_says_how_to_get_it(arguments: list[str]):
    done = run("launch", "verl/qwen3-4b-base", *arguments)
    assert done.returncode == 2
    assert "pip install verl==0.9.1" in done.stderr


def test_launch_hands_over_its_process(hosts: Path, data: list[str]):
    done = run("launch", "verl/qwen3-4b-base", *data, path=hosts)
    assert done.returncode == 7, done.stderr
    answer = json.loads(done.stdout)
    described = json.loads(run("show", "verl/qwen3-4b-base", *data, "--json").stdout)
    assert answer["arguments"] == described["command"][3:]
    assert answer["address"] is None


def test_submit_hands_the_command_to_ray(hosts: Path):
    done = run("launch", "verl/qwen3-30b-a3b-base", "--submit", "http://head:8265", path=hosts)
    assert done.returncode == 7, done.stderr
    arguments = json.loads(done.stdout)["arguments"]
    assert arguments[:7] == [
        "job",
        "submit",
        "--address=http://head:8265",
        "--",
        "python",
        "-m",
        "verl.trainer.main_ppo",
    ]
    assert "trainer.nnodes=2" in arguments


def test_missing_data_is_named(hosts: Path, data: list[str]):
    done = run("launch", "verl/qwen3-4b-base", *data, "--set", "data.val_files=[/nowhere/aime.parquet]", path=hosts)
    assert done.returncode == 2
    assert "data.val_files: /nowhere/aime.parquet does not exist" in done.stderr
    home = run("launch", "verl/qwen3-4b-base", path=hosts)
    assert f"{Path.home()}/data/dapo-math/train.parquet does not exist" in home.stderr


def test_the_grader_must_be_there(hosts: Path, data: list[str]):
    (hosts / "math_verify.py").unlink()
    if importlib.util.find_spec("math_verify") is None:
        done = run("launch", "verl/qwen3-4b-base", *data, path=hosts)
        assert done.returncode == 2 and "pip install 'math-verify[antlr4_9_3]'" in done.stderr
    own = ["--set", "reward.custom_reward_function.path=reward.py"]
    assert run("launch", "verl/qwen3-4b-base", *data, *own, path=hosts).returncode == 7


def test_too_few_gpus(hosts: Path, data: list[str]):
    done = run("launch", "verl/qwen3-4b-base", *data, "--set", "trainer.n_gpus_per_node=4096", path=hosts)
    assert done.returncode == 2
    assert "asks for 4096 GPUs and this machine has" in done.stderr
    done = run("launch", "verl/qwen3-4b-base", *data[:4], "--set", "trainer.nnodes=2", path=hosts)
    assert done.returncode == 2
    assert "asks for 2 machines (16 GPUs)" in done.stderr and "--address" in done.stderr


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys, drpo.cli; sys.argv = ['drpo', 'recipe', '--help']\n"
        "try: drpo.cli.main()\nexcept SystemExit: pass\n"
        "print('LOADED', 'torch' in sys.modules, 'drpo.host_runs' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("LOADED False False"), done.stdout + done.stderr
