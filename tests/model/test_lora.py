"""LoRA: adapters alone train, are sampled, saved, resumed, evaluated and merged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM
from typer.testing import CliRunner

from drpo.cli.app import app
from drpo.errors import ConfigError
from drpo.model.forward import Sequences
from drpo.model.lora import add_adapter, describe_adapter, linear_names, plain_weights
from drpo.model.lora_settings import Lora
from drpo.model.policy import Policy, load_policy
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from drpo.run_directory import RunDirectory
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from support import tiny

pytest.importorskip("peft", reason="pip install -e '.[lora]'")

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def configuration(copyist: Path, *changes: str) -> TrainConfig:
    return load_config(
        None,
        [
            f"model={copyist}",
            "task=copy",
            "task.length=2",
            "prompts_per_step=8",
            "group_size=4",
            "updates_per_step=2",
            "max_new_tokens=4",
            "steps=6",
            "eval_every=0",
            "checkpoint_every=2",
            "eval_examples=2",
            "eval_samples=16",
            "learning_rate=5e-3",
            "device=cpu",
            "lora.rank=4",
            "lora.alpha=8",
            *changes,
        ],
    )[0]


@pytest.fixture(scope="module")
def finished(copyist: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "whole")
    train(configuration(copyist), run)
    return run


def newest(run: RunDirectory) -> Path:
    return sorted(run.checkpoints.glob("step-*"))[-1]


def logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


def sharpen(policy: Policy) -> None:
    """As if it had been trained: B is no longer 0."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3)


def test_fresh_adapters_change_nothing_and_alone_train(copyist: Path) -> None:
    plain, adapted = load_policy(str(copyist), CPU), load_policy(str(copyist), CPU, lora=Lora(rank=4))
    assert torch.equal(logprobs(adapted.model, [3, 4, 5]), logprobs(plain.model, [3, 4, 5]))
    names = [name for name, parameter in adapted.model.named_parameters() if parameter.requires_grad]
    assert len(names) == 2 * 7 * 2 and all(".lora_A." in name or ".lora_B." in name for name in names)
    assert len(adapted.trained_parameters()) == len(names)
    assert adapted.head is not None  # the fused loss stays


def test_a_run_trains_the_adapters_and_nothing_else(copyist: Path, finished: RunDirectory) -> None:
    before, after = load_policy(str(copyist), CPU).model, load_policy(str(newest(finished)), CPU).model
    frozen = {name.replace(".base_layer.", "."): value for name, value in after.state_dict().items()}
    for name, value in before.state_dict().items():
        assert torch.equal(frozen[name], value), name
    assert all(bool(value.any()) for name, value in after.named_parameters() if ".lora_B." in name)
    files = {file.name for file in newest(finished).iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "optimizer.safetensors"} <= files
    assert "model.safetensors" not in files


def test_interrupted_and_resumed_is_the_uninterrupted_run_bit_for_bit(
    copyist: Path, tmp_path: Path, finished: RunDirectory
) -> None:
    asked: list[int] = []
    part = RunDirectory(tmp_path / "part")
    summary = train(configuration(copyist), part, stop_requested=lambda: asked.append(1) or len(asked) == 3)
    assert (summary.status, summary.step) == ("interrupted", 3)
    train(load_config(part.config_file)[0], part, resume=True)
    for file in ("adapter_model.safetensors", "optimizer.safetensors"):
        assert (newest(part) / file).read_bytes() == (newest(finished) / file).read_bytes()
    assert part.read_rollouts("step") == finished.read_rollouts("step")


def test_it_learns(copyist: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    config = configuration(copyist, "steps=20", "group_size=8", "eval_samples=64", "gradient_checkpointing=true")
    summary = train(config, run)
    assert summary.accuracy_before is not None and summary.accuracy_after is not None
    assert summary.accuracy_after > summary.accuracy_before + 0.2


def test_the_sampler_samples_the_adapted_policy(copyist: Path) -> None:
    """|log π − log μ| after updates, through the lean decoding step."""
    policy = load_policy(str(copyist), CPU, lora=Lora(rank=4))
    sampler = InProcessSampler(policy.model, policy.stop_ids)  # made while B is 0, as in a run
    assert sampler._forward.lean is not None
    request = [Request([3, 4, 5], 8, seed=2)]
    before = sampler.sample(request, SamplingParameters(max_new_tokens=12))
    sharpen(policy)
    (after,) = sampler.sample(request, SamplingParameters(max_new_tokens=12))
    assert [response.token_ids for response in after] != [response.token_ids for response in before[0]]
    with torch.no_grad():
        found, _ = policy.response_logprobs([Sequences([3, 4, 5], response.token_ids) for response in after], 1.0)
    expected = torch.tensor([value for response in after for value in response.behavior_logprobs])
    assert float((found - expected).abs().max()) < 1e-4


def test_every_update_of_a_run_starts_from_what_was_sampled(finished: RunDirectory) -> None:
    """The first update of each step has the weights that sampled: no mismatch, however far training has come."""
    first = [record for record in finished.read_metrics("update") if record["update"] == 0]
    assert len(first) == 6 and all(record["mismatch_max"] < 1e-4 for record in first)
    assert any(record["mismatch_max"] > 1e-3 for record in finished.read_metrics("update") if record["update"] == 1)


def test_eval_and_export(copyist: Path, finished: RunDirectory, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["eval", str(finished.path), "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["accuracy"] == finished.read_metrics("evaluation")[-1]["accuracy"]

    out = tmp_path / "plain"
    told = CliRunner().invoke(app, ["export", str(finished.path), "--out", str(out)])
    assert told.exit_code == 0 and "adapter merged" in told.output
    merged, adapted = AutoModelForCausalLM.from_pretrained(out), load_policy(str(newest(finished)), CPU).model
    assert "lora" not in " ".join(merged.state_dict())
    assert torch.allclose(logprobs(merged, [3, 4, 5]), logprobs(adapted, [3, 4, 5]), atol=1e-5)
    assert not torch.allclose(
        logprobs(merged, [3, 4, 5]), logprobs(load_policy(str(copyist), CPU).model, [3, 4, 5]), atol=1e-2
    )
    assert AutoTokenizer.from_pretrained(out).eos_token == tiny.END
    again = CliRunner().invoke(app, ["export", str(finished.path), "--out", str(out)])
    assert isinstance(again.exception, ConfigError) and "exists. Choose another" in str(again.exception)


def test_transformers_itself_loads_a_checkpoint(finished: RunDirectory) -> None:
    theirs, ours = AutoModelForCausalLM.from_pretrained(newest(finished)), load_policy(str(newest(finished)), CPU)
    assert torch.equal(logprobs(theirs, [3, 4, 5]), logprobs(ours.model, [3, 4, 5]))


def test_merged_weights_have_the_names_of_the_base(copyist: Path) -> None:
    plain, policy = load_policy(str(copyist), CPU), load_policy(str(copyist), CPU, lora=Lora(rank=4))
    sharpen(policy)
    merged = plain_weights(policy.model)
    assert merged.keys() == plain.model.state_dict().keys() == plain_weights(plain.model).keys()
    expected = logprobs(policy.model, [3, 4, 5])
    plain.model.load_state_dict(merged)
    assert torch.allclose(logprobs(plain.model, [3, 4, 5]), expected, atol=1e-5)


def test_an_adapter_is_not_a_model_to_train(copyist: Path, finished: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a LoRA adapter, not a model to train. Merge it first: `drpo export"):
        train(configuration(newest(finished)), RunDirectory(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_targets_cover_in_a_mixture_of_experts() -> None:
    """Attention is linear layers; stacked experts and the router are parameters without one."""
    shape: dict[str, Any] = {
        "vocab_size": 20,
        "hidden_size": 32,
        "intermediate_size": 64,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    }
    network = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape)).eval()
    assert linear_names(network) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    add_adapter(network, Lora(rank=2), "somewhere")
    told = describe_adapter(network)
    assert "model.layers.*.mlp.experts.gate_up_proj" in told and "model.layers.*.mlp.gate.weight" in told
    assert "q_proj" not in told
    with pytest.raises(ConfigError, match=r"no linear layer 'gate_up_proj'"):
        add_adapter(network, Lora(targets=["gate_up_proj"]), "somewhere")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["lora.rnk=3"], r"unknown key 'lora.rnk'. Did you mean 'rank'\? Known: alpha, dropout, rank, targets"),
        (["lora.dropout=0.1"], r"lora.dropout: must stay 0: with dropout log π of a token is random"),
        (["lora.rank=0"], r"lora.rank: input should be greater than or equal to 1"),
        (["lora.targets=all"], r"lora.targets"),
    ],
)
def test_mistakes_are_explained(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


def test_layers_of_configuration(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("lora: {rank: 8, targets: [q_proj, v_proj]}\n")
    config, sources = load_config(file, ["lora.alpha=4"])
    assert config.lora == Lora(rank=8, alpha=4.0, targets=["q_proj", "v_proj"])
    assert sources["lora.alpha"] == "command line" and sources["lora.rank"] == str(file)
    assert load_config(file, ["lora=null"])[0].lora is None
    assert load_config(None, ["lora={}"])[0].lora == Lora()


def test_a_peft_that_is_too_old_for_transformers_is_explained(copyist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.24.0 asked for peft 0.22.0 before it was released."""
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "99.0")
    with pytest.raises(ConfigError, match=r"needs peft 99\.0 or newer, found .*pip install 'peft>=99\.0'"):
        load_policy(str(copyist), CPU, lora=Lora())


def test_an_unknown_target_and_a_missing_package_are_explained(copyist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no linear layer 'q_porj' .*Did you mean 'q_proj'\?"):
        load_policy(str(copyist), CPU, lora=Lora(targets=["q_porj"]))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"lora needs peft, .*pip install -e '\.\[lora\]'"):
        load_policy(str(copyist), CPU, lora=Lora())
