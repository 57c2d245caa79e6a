"""Configuration: layers, provenance, and the message for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.errors import ConfigError
from drpo.rollouts import VllmOptions
from drpo.train.config import TrainConfig, as_overrides, load_config, validate_config


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
    assert config.make_objective().delta == 0.2  # pyright: ignore[reportAttributeAccessIssue]


def test_every_key_the_command_line_promises_exists() -> None:
    promised = {
        "model", "task", "objective", "steps", "seed", "prompts_per_step", "group_size", "updates_per_step",
        "learning_rate", "temperature", "max_new_tokens", "checkpoint_every", "eval_every", "device",
    }
    assert promised <= set(TrainConfig.model_fields)


def test_delta_shown_follows_the_objective() -> None:
    assert load_config(None, ["objective.delta=0.4"])[0].delta == 0.4
    assert load_config(None, ["objective=grpo"])[0].delta == 0.15
    assert load_config(None, ["objective=grpo", "delta_shown=0.05"])[0].delta == 0.05


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
        (["top_p=0.9"], r"truncated sampling is refused"),
        (["temperature=0"], r"temperature: input should be greater than 0"),
        (["updates_per_step=200"], r"updates_per_step=200 exceeds the 128 responses of a step"),
        (["aggregation=mean"], r"aggregation: input should be 'token_mean', 'sequence_mean' or 'sequence_sum'"),
        (["sampler=vlm"], r"unknown sampler 'vlm'. Did you mean 'vllm'\? Known: in_process, vllm"),
        (["sampler.sleep=true"], r"sampler 'in_process' has no parameter 'sleep'. Known: compiled"),
        (["sampler=vllm", "sampler.attempts=0"], r"sampler.attempts: input should be greater .*got 0 \(failures"),
        (["steps"], r"'steps' is neither a file nor key=value"),
        (["=3"], r"is neither a file nor key=value"),
        (["steps=["], r"the value is not YAML"),
    ],
)
def test_mistakes_are_explained(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)steps: .*\n.*unknown key 'colour'"):
        load_config(None, ["steps=0", "colour=red"])


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match=r"is not YAML"):
        load_config(write(tmp_path / "a.yaml", "steps: [1"))
    with pytest.raises(ConfigError, match=r"must hold 'key: value' lines, got a list"):
        load_config(write(tmp_path / "b.yaml", "- steps"))


def test_overrides_that_make_a_configuration() -> None:
    given = ["task.name=other", "task.min_terms=2", "objective=grpo", "weight_decay=1e-7", "model=a b", "project=null"]
    config, _ = load_config(None, given)
    assert config.task.parameters == {"min_terms": 2}  # as in the default task, whose parameters do not stay
    assert as_overrides(config) == [
        'model="a b"', "task.name=other", "task.min_terms=2", "objective.name=grpo", "weight_decay=1e-07"
    ]
    assert load_config(None, as_overrides(config))[0] == config
    assert as_overrides(load_config()[0]) == []
