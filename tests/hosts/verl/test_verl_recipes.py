"""Every recipe × objective, checked by verl's own code; and recipes that are wrong, refused by it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from drpo.errors import ConfigError
from drpo.host_runs import compose, launch, load_recipe, recipe_names
from drpo.host_runs.command import Plan
from drpo.integrations.verl_plugin.dry_run import compose_config, main, validate

pytestmark = pytest.mark.filterwarnings("ignore:drpo. delta ≥ 1")  # the paper's own 12.5

RUNS = [
    (name, objective)
    for name in recipe_names()
    if name.startswith("verl/")
    for objective in load_recipe(name).objectives
]
ACTOR = "actor_rollout_ref.actor"


@cache
def plan_of(name: str, objective: str) -> Plan:
    return compose(load_recipe(name), objective)


def changed(*changes: str, name: str = "verl/qwen3-4b-base") -> list[str]:
    return compose(load_recipe(name), "drpo", changes).arguments


@pytest.mark.parametrize(("name", "objective"), RUNS)
def test_verl_accepts_every_recipe_with_every_objective(name: str, objective: str):
    plan = plan_of(name, objective)
    config = compose_config(plan.arguments)
    lines = validate(config)
    assert any(line.startswith(f"loss drpo is registered: {objective}") for line in lines)
    # What verl composed is what the recipe says, setting by setting.
    for setting in plan.recipe.settings:
        if "." in setting.name and setting.name != "hydra.searchpath":
            found: object = config
            for part in setting.name.split("."):
                found = found[part]  # pyright: ignore[reportIndexIssue]
            if "${" not in str(setting.value):
                assert found == setting.value, setting.name
    loss = config.actor_rollout_ref.actor.policy_loss
    assert (loss.objective, dict(loss.parameters)) == (objective, plan.objective.parameters)
    assert config.algorithm.rollout_correction.bypass_mode is True
    assert config.actor_rollout_ref.actor.strategy == "megatron"


def test_there_are_thirty_runs():
    assert len(RUNS) == 30


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["trainer.nnode=2"], "trainer.nnode"),
        ([f"+{ACTOR}.policy_loss.delta=0.2"], "delta"),
        ([f"{ACTOR}.loss_scale_factor=null"], "loss_scale_factor"),
        (["algorithm.rollout_correction.bypass_mode=false"], "bypass_mode"),
        (["actor_rollout_ref.rollout.top_p=0.9"], "top_p"),
        ([f"{ACTOR}.clip_ratio_high=0.28"], "clip_ratio_high"),
        ([f"{ACTOR}.policy_loss.objective=dpro"], "Did you mean 'drpo'?"),
        (["delta=-1"], "delta"),
        ([f"{ACTOR}.policy_loss.loss_mode=vanilla"], "loss_mode"),
        ([f"{ACTOR}.loss_agg_mode=mean"], "loss_agg_mode"),
        (["actor_rollout_ref.rollout.mode=sync"], "sync"),
        (["trainer.n_gpus_per_node=3"], "GPUs (3) must be a multiple"),
        (["data.train_batch_size=40"], "data.train_batch_size (40) must be a multiple of ppo_mini_batch_size (32)"),
        (["actor_rollout_ref.rollout.n=[1"], "no viable alternative at input"),
    ],
)
def test_a_broken_recipe_is_refused(changes: list[str], words: str):
    answer = main(changed(*changes))
    assert "error" in answer and words in answer["error"]


def test_a_recipe_without_the_preset_would_run_verls_own_loss():
    recipe = load_recipe("verl/qwen3-4b-base")
    kept = tuple(setting for setting in recipe.settings if setting.name != "drpo")
    arguments = Plan(dataclasses.replace(recipe, settings=kept), recipe.objectives["drpo"]).arguments
    assert "the policy loss is verl's own" in main(arguments)["error"]


def test_a_recipe_without_its_horizon():
    recipe = plan_of("verl/qwen3-4b-base", "drpo").recipe
    kept = tuple(setting for setting in recipe.settings if not setting.name.endswith("loss_scale_factor"))
    answer = main(Plan(dataclasses.replace(recipe, settings=kept), recipe.objectives["drpo"]).arguments)
    assert "loss_scale_factor" in answer["error"]


def test_expert_parallel_sizes_must_divide():
    answer = main(changed("trainer.nnodes=1", "trainer.n_gpus_per_node=4", name="verl/qwen3-30b-a3b-base"))
    assert "must be a multiple of expert-parallel ranks (8)" in answer["error"]


def recipe_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "drpo", "recipe", *arguments], capture_output=True, text=True)


def test_the_dry_run_of_the_command_line():
    done = recipe_command("launch", "verl/qwen3-30b-a3b-base-fp8", "--objective", "dppo_tv", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "verl/qwen3-30b-a3b-base-fp8 with dppo_tv: valid" in done.stdout
    assert "loss drpo is registered: dppo_tv, delta=0.6" in done.stdout
    assert "verl's validate_config" in done.stdout
    assert "not checked  megatron.override_transformer_config" in done.stdout
    done = recipe_command("launch", "verl/qwen3-4b-base", "--dry-run", "--set", "trainer.nnode=2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: verl refuses the configuration") and "trainer.nnode" in done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    import ray

    ray.init(num_cpus=1, num_gpus=4, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def test_gpus_of_a_ray_cluster_are_counted(cluster: str, tmp_path):
    file = tmp_path / "data.parquet"
    file.touch()
    found = [
        "--set",
        f"data.train_files={file}",
        "--set",
        f"data.val_files={file}",
        "--set",
        "reward.custom_reward_function.path=null",
    ]
    done = recipe_command("launch", "verl/qwen3-4b-base", *found, "--address", cluster)
    assert done.returncode == 2
    assert f"asks for 8 GPUs and the Ray cluster {cluster} has 4" in done.stderr


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "RAY_TIME_LIMIT", 10)
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        launch.require_gpus(plan_of("verl/qwen3-4b-base", "grpo"), "127.0.0.1:1")


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed")
def test_math_verify_grades():
    from drpo.integrations.verl_plugin.math_reward import compute_score

    assert compute_score("math_dapo", r"so it is \boxed{\frac{1}{2}}", "0.5") == 1.0
    assert compute_score("math_dapo", "no idea, and cut o", "0.5") == 0.0


def test_the_answer_of_the_dry_run_is_json():
    assert set(json.loads(json.dumps(main(changed())))) == {"validated", "not_validated"}
