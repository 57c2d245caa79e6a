"""The recipe files, and how a recipe, an objective and changes become one command. No host is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from drpo.errors import ConfigError
from drpo.host_runs import compose, load_recipe, recipe_names
from drpo.host_runs.catalog import read_recipe
from drpo.host_runs.command import hydra_value
from drpo.lab.study import load_study
from drpo.objectives import OBJECTIVES
from drpo.recipe_files import ROOT, names_below, recipe_file
from drpo.train.config_layers import load_config

PAPER = [name for name in recipe_names() if name.startswith("verl/")]
LOSS = "actor_rollout_ref.actor.policy_loss"
DELTA = f"+{LOSS}.parameters.delta"


def value(name: str, key: str, objective: str | None = None):
    return compose(load_recipe(name), objective).recipe.value(key)


def test_the_papers_six_settings_are_there():
    assert sorted(load_recipe(name).model for name in PAPER) == [
        "Qwen/Qwen3-30B-A3B-Base",
        "Qwen/Qwen3-30B-A3B-Base",
        "Qwen/Qwen3-30B-A3B-Base",
        "Qwen/Qwen3-4B-Base",
        "Qwen/Qwen3.5-35B-A3B-Base",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    ]
    assert "trl/qwen3-0.6b-gsm8k" in recipe_names()


@pytest.mark.filterwarnings("ignore:drpo. delta ≥ 1")  # the paper's own 12.5
@pytest.mark.parametrize("name", recipe_names())
def test_every_objective_of_a_recipe_can_be_made(name: str):
    recipe = load_recipe(name)
    assert list(recipe.objectives) == ["drpo", "grpo", "spo", "dppo_tv", "surrogate"]
    for objective, choice in recipe.objectives.items():
        OBJECTIVES[objective](**choice.parameters)
        plan = compose(recipe, objective)
        assert len({setting.name for setting in plan.recipe.settings}) == len(plan.recipe.settings)
        assert all(setting.why for setting in plan.recipe.settings)


@pytest.mark.parametrize(
    ("name", "batch", "mini_batch", "group"),
    [
        ("verl/qwen3-4b-base", 64, 32, 8),
        ("verl/qwen3-30b-a3b-base", 256, 32, 16),
        ("verl/qwen3-30b-a3b-base-fp8-rollout", 256, 32, 16),
        ("verl/qwen3-30b-a3b-base-fp8", 256, 32, 16),
        ("verl/qwen3.5-35b-a3b-base", 256, 32, 16),
        ("verl/r1-distill-qwen-1.5b", 64, 16, 8),
    ],
)
def test_table_2(name: str, batch: int, mini_batch: int, group: int):
    assert value(name, "data.train_batch_size") == batch
    assert value(name, "actor_rollout_ref.actor.ppo_mini_batch_size") == mini_batch
    assert value(name, "actor_rollout_ref.rollout.n") == group
    assert value(name, "actor_rollout_ref.actor.optim.lr") == 1e-6
    assert value(name, "data.max_prompt_length") == 2048
    assert value(name, "data.max_response_length") == value(name, "actor_rollout_ref.actor.loss_scale_factor") == 8192


def test_thresholds_of_the_paper():
    for name in PAPER:
        assert value(name, f"{LOSS}.parameters.delta", "drpo") == 12.5
        assert value(name, f"{LOSS}.parameters.epsilon", "spo") == 12.5
        assert value(name, f"{LOSS}.parameters.ratio_low", "grpo") == 0.2
        assert value(name, f"{LOSS}.parameters.ratio_high", "grpo") == 0.28
        expected = 0.6 if name == "verl/qwen3-30b-a3b-base-fp8" else 0.15
        assert value(name, f"{LOSS}.parameters.delta", "dppo_tv") == expected


def test_precisions():
    fp8 = "actor_rollout_ref.actor.megatron.override_transformer_config.fp8"
    assert value("verl/qwen3-30b-a3b-base", "actor_rollout_ref.rollout.quantization") is None
    for name in ("verl/qwen3-30b-a3b-base-fp8-rollout", "verl/qwen3-30b-a3b-base-fp8"):
        assert value(name, "actor_rollout_ref.rollout.quantization") == "fp8"
    assert value("verl/qwen3-30b-a3b-base-fp8-rollout", fp8) is None
    assert value("verl/qwen3-30b-a3b-base-fp8", fp8) == "e4m3"


@pytest.mark.parametrize("name", PAPER)
def test_what_is_cut_off_in_the_public_table_is_assumed(name: str):
    origin = {setting.name: setting.origin for setting in load_recipe(name).settings}
    public = name not in ("verl/qwen3.5-35b-a3b-base", "verl/r1-distill-qwen-1.5b")
    assert origin["actor_rollout_ref.rollout.n"] == ("public" if public else "assumed")
    assert origin["trainer.nnodes"] == "assumed"
    assert origin["data.train_files"] == "assumed"


def test_another_registered_objective_runs_with_its_defaults_and_is_no_run_of_the_paper():
    plan = compose(load_recipe("verl/qwen3-4b-base"), "cispo")
    assert f"{LOSS}.objective=cispo" in plan.arguments
    assert (plan.objective.origin, plan.objective.parameters) == ("assumed", {})


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ("delta=0.2", f"{DELTA}=0.2"),
        ("deadzone=0.05", f"+{LOSS}.parameters.deadzone=0.05"),
        ("trainer.nnodes=2", "trainer.nnodes=2"),
        (f"{LOSS}.parameters.delta=0.3", f"{DELTA}=0.3"),
        ("+trainer.new=[a,b]", "+trainer.new=[a,b]"),
        ("trainer.experiment_name=a=b", "trainer.experiment_name=a=b"),
    ],
)
def test_a_change_replaces_what_it_names(change: str, argument: str):
    plan = compose(load_recipe("verl/qwen3-4b-base"), "drpo", [change])
    assert argument in plan.arguments
    name = argument.partition("=")[0].lstrip("+")
    assert [text.partition("=")[0].lstrip("+") for text in plan.arguments].count(name) == 1
    assert [setting.name for setting in plan.recipe.settings if setting.origin == "yours"] == [name]
    before = {setting.name for setting in compose(load_recipe("verl/qwen3-4b-base"), "drpo").recipe.settings}
    assert {setting.name for setting in plan.recipe.settings} == before | {name}


@pytest.mark.parametrize(
    ("objective", "changes", "words"),
    [
        ("dpro", [], "unknown objective 'dpro'. Did you mean 'drpo'?"),
        ("drpo", ["delta"], "--set 'delta' is not key=value"),
        ("drpo", ["=3"], "is not key=value"),
        ("drpo", ["detla=0.2"], "neither a parameter of 'drpo' nor a key of verl's. Did you mean 'delta'?"),
        ("spo", ["delta=0.2"], "neither a parameter of 'spo'"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(objective: str, changes: list[str], words: str):
    with pytest.raises(ConfigError) as caught:
        compose(load_recipe("verl/qwen3-4b-base"), objective, changes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        (None, "null"),
        (True, "true"),
        (8, "8"),
        (12.5, "12.5"),
        (1e-6, "1.0e-06"),
        (-1, "-1"),
        ("fp8", "fp8"),
        ("Qwen/Qwen3-4B-Base", "Qwen/Qwen3-4B-Base"),
        ("pkg://a.b", "pkg://a.b"),
        ("1", "'1'"),
        ("true", "'true'"),
        ("no", "'no'"),
        ("", "''"),
        ("a b", "'a b'"),
        ("${oc.env:HOME}/data/x.parquet", "${oc.env:HOME}/data/x.parquet"),
        (["a", 0.9], "[a,0.9]"),
        ({"a": 1}, "{a:1}"),
    ],
)
def test_values_in_hydras_notation(plain: object, written: str):
    assert hydra_value(plain) == written
    if not isinstance(plain, dict) and "$" not in written:
        assert yaml.safe_load(written) == plain, "the TRL recipe's arguments are read as YAML"


def test_a_value_that_cannot_be_quoted_is_an_error():
    with pytest.raises(ConfigError, match="quotes"):
        hydra_value("it's")


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "top.yaml"


HEAD = "title: t\nhost: verl\nmodel: m\n"


def test_included_settings_come_first_and_are_replaced(tmp_path: Path):
    top = write(
        tmp_path,
        top=HEAD + "include: [below]\nsettings: [{assumed: why, values: {a.b: 2, c.d: 3}}]\n",
        below="settings: [{public: where, values: {+a.b: 1, e.f: 1}}]\nnot_expressible: [x]\n",
        _objectives="drpo: {parameters: {}, public: here}\n",
    )
    recipe = read_recipe(top, "verl/top")
    found = [(setting.key, setting.value, setting.origin, setting.why) for setting in recipe.settings]
    assert found == [("a.b", 2, "assumed", "why"), ("e.f", 1, "public", "where"), ("c.d", 3, "assumed", "why")]
    assert recipe.not_expressible == ("x",)
    assert list(recipe.objectives) == ["drpo"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "setings: []\n", "Did you mean 'settings'?"),
        (HEAD + "settings: [{values: {a.b: 1}}]\n", "exactly one of"),
        (HEAD + "settings: [{public: x, assumed: y, values: {a.b: 1}}]\n", "exactly one of"),
        (HEAD + "settings: [{public: '', values: {a.b: 1}}]\n", "exactly one of"),
        (HEAD + "settings: [{public: x, values: {a.b: 1}}, {assumed: y, values: {+a.b: 2}}]\n", "sets 'a.b' twice"),
        (HEAD + "include: [top]\n", "includes itself"),
        (HEAD + "include: [missing]\n", "cannot read the recipe"),
        ("host: verl\nmodel: m\n", "needs 'title'"),
        (HEAD.replace("verl", "slime"), "host"),
        ("a: [", "cannot read the recipe"),
    ],
)
def test_a_malformed_recipe_is_refused(tmp_path: Path, text: str, words: str):
    with pytest.raises(ConfigError) as caught:
        read_recipe(write(tmp_path, top=text), "verl/top")
    assert words in str(caught.value)


def test_every_name_has_its_file_and_every_file_but_parts_its_name():
    files = {file for file in ROOT.rglob("*.yaml") if file.name[0] != "_"}
    assert {recipe_file(f"recipe:{name}") for name in names_below()} == files
    assert {"qwen3-0.6b-gsm8k", "settings/dense-bf16", "studies/smoke", "verl/qwen3-4b-base"} <= set(names_below())


def test_a_recipe_is_named_wherever_a_file_is(tmp_path: Path):
    config, sources = load_config("recipe:settings/dense-bf16")
    assert config == load_config(ROOT / "settings" / "dense-bf16.yaml")[0]
    assert sources["model"] == "recipe:settings/dense-bf16"
    assert load_study("recipe:studies/smoke") == load_study(str(ROOT / "studies" / "smoke.yaml")) == load_study("smoke")
    assert load_recipe("recipe:verl/qwen3-4b-base") == load_recipe("qwen3-4b-base")
    text = (ROOT / "studies" / "mask.yaml").read_text(encoding="utf-8")
    own = tmp_path / "mask.yaml"
    own.write_text(text.replace("../settings/dense-bf16.yaml", "recipe:settings/dense-bf16"), encoding="utf-8")
    assert "recipe:settings/dense-bf16" in own.read_text(encoding="utf-8")
    assert load_study(str(own)) == load_study("recipe:studies/mask")


def test_a_path_stays_a_path(tmp_path: Path):
    assert recipe_file("a/b.yaml") == Path("a/b.yaml")
    assert recipe_file("../b.yaml", tmp_path) == tmp_path / "../b.yaml"
    assert recipe_file("recipe:studies/smoke", tmp_path) == ROOT / "studies" / "smoke.yaml"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("recipe:settings/dense-bf61", "Did you mean 'settings/dense-bf16'?"),
        ("recipe:smoke", "Did you mean 'studies/smoke'?"),
        ("recipe:studies/smoke.yaml", "Did you mean 'studies/smoke'?"),
        ("recipe:verl/_paper", "Known: "),
        ("recipe:../assets/x", "Known: "),
        ("recipe:", "Known: "),
    ],
)
def test_an_unknown_recipe_is_refused_with_the_nearest(name: str, nearest: str):
    for read in (load_config, load_study, recipe_file):
        with pytest.raises(ConfigError, match="unknown recipe") as caught:
            read(name)
        assert nearest in str(caught.value)
