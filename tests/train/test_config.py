"""Configuration: layers, provenance, and the message for every mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from drpo.errors import ConfigError
from drpo.rollouts import VllmOptions
from drpo.run_directory import RunDirectory
from drpo.train.config import TrainConfig
from drpo.train.config_aliases import ALIASES
from drpo.train.config_layers import as_overrides, load_config, validate_config
from drpo.train.settings import update_settings

pytestmark = pytest.mark.slow


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_then_file_then_command_line(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "steps: 7\nlearning_rate: 2e-4\nobjective:\n  delta: 0.3\n")
    config, sources = load_config(file, ["steps=9", "objective.deadzone=0.1"])
    assert (config.steps, config.learning_rate) == (9, 2e-4)
    assert config.objective.parameters == {"delta": 0.3, "deadzone": 0.1}
    assert config.objective.name == "drpo"
    assert sources["steps"] == "command line"
    assert sources["learning_rate"] == sources["objective.delta"] == str(file)
    assert sources["objective.name"] == sources["seed"] == "default"


def test_naming_another_objective_drops_the_parameters_of_the_one_before(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "objective: {name: drpo, delta: 0.3}\n")
    for override in ("objective.name=ppo", "objective=ppo"):
        config, sources = load_config(file, [override])
        assert config.objective.name == "ppo" and config.objective.parameters == {}
        assert "objective.delta" not in sources
    kept, _ = load_config(file, ["objective.name=drpo"])
    assert kept.objective.parameters == {"delta": 0.3}


def test_a_task_and_its_parameters_in_either_order() -> None:
    for overrides in (["task=jsonl", "task.path=x.jsonl"], ["task.path=x.jsonl", "task=jsonl"]):
        config, _ = load_config(None, overrides)
        assert config.task.name == "jsonl" and config.task.parameters == {"path": "x.jsonl"}


def test_a_resolved_configuration_loads_as_itself() -> None:
    config, _ = load_config(None, ["objective=dppo_tv", "objective.delta=2e-1", "task.max_terms=3"])
    assert validate_config(config.as_dict()) == config
    assert validate_config(config.resolved()).make_sampler_options() == config.make_sampler_options()
    sampled = load_config(None, ["sampler.sleep=true", "sampler=vllm"])[0]
    assert sampled.make_sampler_options() == VllmOptions(sleep=True)
    assert sampled.resolved()["sampler"]["attempts"] == 3
    assert config.make_objective().shift_bound == 0.2


def test_every_key_the_command_line_promises_exists() -> None:
    promised = {
        "model",
        "task",
        "objective",
        "steps",
        "seed",
        "prompts_per_step",
        "group_size",
        "updates_per_step",
        "learning_rate",
        "temperature",
        "max_new_tokens",
        "checkpoint_every",
        "eval_every",
        "device",
    }
    assert promised <= set(TrainConfig.model_fields)


@pytest.mark.parametrize(
    ("overrides", "delta"),
    [
        (["objective.delta=0.4"], 0.4),
        (["objective.delta=0.4", "objective.modifiers=[opsm]"], 0.4),
        (["objective=grpo"], 0.15),
        (["objective=grpo", "delta_shown=0.05"], 0.05),
        (["objective.delta=0.4", "delta_shown=0.05"], 0.05),
    ],
)
def test_delta_shown_follows_the_objective(overrides: list[str], delta: float) -> None:
    config, _ = load_config(None, overrides)
    assert update_settings(config, config.make_objective(), torch.device("cpu")).delta == delta


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stepps=3"], r"unknown key 'stepps'. Did you mean 'steps'\? Known: advantages"),
        (["objective.name=drop"], r"unknown objective 'drop'. Did you mean 'drpo'\?"),
        (["objective.detla=0.1"], r"objective 'drpo' has no parameter 'detla'. Did you mean 'delta'\?"),
        (["objective.delta=0"], r"drpo: delta must be a finite probability > 0, got 0"),
        (["objective.delta=-0.1"], r"drpo: delta must be a finite probability > 0, got -0.1"),
        (["objective.delta=.nan"], r"drpo: delta must be a finite probability > 0, got nan"),
        (["steps=ten"], r"steps: input should be a valid integer, got 'ten' \(rollout batches\)"),
        (["steps=0"], r"steps: input should be greater than or equal to 1, got 0"),
        (["steps=true"], r"steps: input should be a valid integer"),
        (["learning_rate=.inf"], r"learning_rate: input should be a finite number"),
        (["group_size=1"], r"group_size: .*greater than or equal to 2, got 1 \(responses a prompt; advantages compare"),
        (["top_p=0"], r"top_p must be in \(0, 1\], got 0"),
        (["top_k=0"], r"top_k must be ≥ 1, or -1"),
        (["min_p=1"], r"min_p must be in \[0, 1\), got 1"),
        (["support_replay=false"], r"support_replay=false would be ignored: nothing is truncated"),
        (["temperature=0"], r"temperature: input should be greater than 0"),
        (["updates_per_step=200"], r"updates_per_step=200 exceeds the 128 responses of a step"),
        (["aggregation=mean"], r"aggregation: input should be 'token_mean', 'sequence_mean' or 'sequence_sum'"),
        (["sampler=vlm"], r"unknown sampler 'vlm'. Did you mean 'vllm'\? Known: in_process, vllm"),
        (["sampler.sleep=true"], r"sampler 'in_process' has no parameter 'sleep'. Known: compiled"),
        (["sampler=vllm", "sampler.attempts=0"], r"sampler.attempts: input should be greater .*got 0 \(consecutive"),
        (["steps"], r"'steps' is neither a file nor key=value"),
        (["=3"], r"is neither a file nor key=value"),
        (["steps=["], r"the value is not YAML"),
        (["learning_rate=2020-99-99"], r"learning_rate: .*valid number, got '2020-99-99'"),
        (["seed=" + "9" * 4300], r"a whole number of 4300 characters"),
        (["seed=18446744073709551616"], r"seed: .*less than 18446744073709551616"),
        (["prompts_per_step=4294967296"], r"prompts_per_step: .*less than 2147483648"),
        (["objective=" + "[" * 5000], r"nested more than 20 deep"),
        (["objective=" + "{a: " * 5000], r"nested more than 20 deep"),
        (["trackers=[&a [x, x], *a, *a]"], r"anchors .* aliases"),
        (["lora={<<: {rank: 1}}"], r"merge keys"),
        (["lora={rank: 1, rank: 2}"], r"'rank' stands twice"),
        (["lora={1: 2}"], r"'1' is not a name"),
        (["seed=!!float x"], r"tags"),
        (["steps=3", "steps.x=1"], r"steps is set to 3 by another override"),
        (["lora.rank=3", "lora=null"], r"would discard lora.rank"),
        (["model=runs/a #1"], r"comment in YAML"),
        (["objective.modifiers=null"], r"drpo: modifiers must be a list .*got None"),
        (["objective.modifiers=3"], r"drpo: modifiers must be a list .*got 3"),
        (["mo\x00del=x"], r"'mo\\x00del=x' is neither"),
        (["model=\x00"], r"unacceptable character"),
        (["a." * 3000 + "a=1"], r"is neither a file nor key=value"),
        (["chat_template_kwargs=x"], r"chat_template_kwargs: .*valid dictionary, got 'x'"),
        (["lr=1e-4"], r"unknown key 'lr'. Here it is learning_rate"),
        (["batch_size=4"], r"prompts_per_step"),
        (["epochs=2"], r"Here it is steps"),
        (["data=x.jsonl"], r"task=jsonl task.path=FILE"),
        (["num_generations=4"], r"group_size"),
        (["Max-Tokens=4"], r"max_new_tokens"),
        (["beta=0.1"], r"drpo objectives"),
    ],
)
def test_mistakes_are_explained(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


@pytest.mark.parametrize("value", ["x" * 100_000, "x y " * 25_000, "[" + "1," * 40_000 + "1]"])
def test_a_long_value_is_not_echoed_whole(value: str) -> None:
    for override in (f"steps={value}", f"objective.delta={value}", f"{value}=1"):
        with pytest.raises(ConfigError) as caught:
            load_config(None, [override])
        assert max(map(len, str(caught.value).splitlines())) < 2100 and "characters]" in str(caught.value)


def test_texts_that_only_look_like_dates_times_or_octal_numbers_stay_texts() -> None:
    config, _ = load_config(None, ["task=x", "task.a=2020-01-01", "task.b=1:30", "task.c=010", "task.d=1_000"])
    assert config.task.parameters == {"a": "2020-01-01", "b": "1:30", "c": "010", "d": 1000}


def test_settings_of_the_chat_template_are_written_and_read_again() -> None:
    given = [
        "system_prompt='Be brief: # 1'",
        "chat_template_kwargs.enable_thinking=false",
        "chat_template_kwargs={documents: [{a: {}, 'b.c': .inf}]}",
    ]
    config, sources = load_config(None, given)
    assert config.system_prompt == "Be brief: # 1"
    assert config.chat_template_kwargs == {"enable_thinking": False, "documents": [{"a": {}, "b.c": float("inf")}]}
    assert load_config(None, as_overrides(config))[0] == config
    assert sources["chat_template_kwargs.enable_thinking"] == "command line"


@pytest.mark.parametrize(
    "text", ["1e5", "-.5e3", "1:30", "yes", "~", "010", "0b1", "2020-01-01", "a: b # c", "\u2028x\x85", "é\n"]
)
def test_texts_survive_the_configuration_file_of_a_run(text: str, tmp_path: Path) -> None:
    shared = [text]
    config = TrainConfig(system_prompt=text, chat_template_kwargs={"a": shared, "b": shared})
    run = RunDirectory(tmp_path / "run")
    run.create(config.resolved(), {})
    assert load_config(run.config_file)[0].resolved() == config.resolved()


def test_every_alias_leads_to_a_setting_that_exists() -> None:
    for alias, meaning in ALIASES.items():
        assert alias not in TrainConfig.model_fields
        keys = re.findall(r"\b[a-z]+_[a-z_]+\b|^\w+", meaning.split("(")[0])
        roots = [key for key in keys if key in TrainConfig.model_fields]
        assert roots or meaning.startswith(("the option --out", "a parameter of an objective")), alias


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)steps: .*\n.*unknown key 'color'"):
        load_config(None, ["steps=0", "color=red"])


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match=r"is not YAML"):
        load_config(write(tmp_path / "a.yaml", "steps: [1"))
    with pytest.raises(ConfigError, match=r"must hold 'key: value' lines, got a list"):
        load_config(write(tmp_path / "b.yaml", "- steps"))
    for text, message in {
        "steps: 3\nseed: 1\nsteps: 4\n": r"'steps' stands twice \(line",
        "seed: 1\n\tsteps: 3\n": "not with tabs",
        "a: &a {b: 1}\ntask: *a\n": "anchors",
        "task:\n  <<: {name: copy}\n": "merge keys",
        "0": "got a int",
        "x: " * 60_000: r"not YAML|nested",
        "# " + "x" * 300_000: "too long for a configuration",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_config(write(tmp_path / "c.yaml", text))
    (tmp_path / "d.yaml").write_bytes(b"steps: 3\xff")
    with pytest.raises(ConfigError, match=r"not UTF-8 \(byte 0xff"):
        load_config(tmp_path / "d.yaml")


def test_overrides_that_make_a_configuration() -> None:
    given = ["task.name=other", "task.min_terms=2", "objective=grpo", "weight_decay=1e-7", "model=a b", "project=null"]
    config, _ = load_config(None, given)
    assert config.task.parameters == {"min_terms": 2}  # as in the default task, whose parameters do not stay
    assert as_overrides(config) == [
        'model="a b"',
        "task.name=other",
        "task.min_terms=2",
        "objective.name=grpo",
        "weight_decay=1e-07",
    ]
    assert load_config(None, as_overrides(config))[0] == config
    assert as_overrides(load_config()[0]) == []
    for value in ("1.0", "true"):  # equal to the default 1 in Python
        assert as_overrides(load_config(None, [f"task.min_digits={value}"])[0]) == [f"task.min_digits={value}"]


@pytest.mark.parametrize("text", ["x/" + "y" * 300, "x " * 2000, "~nobody-of-this-name/model", "a\0b"])
def test_a_text_that_no_file_system_takes_stays_as_it_is(text: str) -> None:
    config = TrainConfig(model=text)
    assert config.resolved()["model"] == text


@pytest.mark.parametrize("key", ["\u202e'9@", "a.b", "a=b", "", "a b", "δ", "a\nb", "#", "<<"])
def test_a_mapping_with_any_key_survives_as_an_override_and_as_a_file(key: str, tmp_path: Path) -> None:
    values = {"task": {"name": "jsonl", "path": "data.jsonl", "fields": {key: {key: 1}, "plain": 2}}}
    config = validate_config({**TrainConfig().as_dict(), **values})
    assert load_config(None, as_overrides(config))[0] == config
    run = RunDirectory(tmp_path / "run")
    run.create(config.resolved(), {})
    assert load_config(run.config_file)[0].resolved() == config.resolved()


@pytest.mark.parametrize("key", ["chat_template_kwargs", "chat_template_kwargs.a.b"])
def test_what_an_override_may_nest_is_what_a_file_may_nest(key: str, tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        return f"{key}={'{a: ' * depth}1{'}' * depth}"

    allowed = 19 - len(key.split("."))
    config, _ = load_config(None, [nested(allowed)])
    run = RunDirectory(tmp_path / "run")
    run.create(config.resolved(), {})
    assert load_config(run.config_file)[0].resolved() == config.resolved()
    with pytest.raises(ConfigError, match="nested more than 20 deep"):
        load_config(None, [nested(allowed + 1)])
