"""A model that is not wholly there, damaged, or no causal LM is refused in one line; so is code that it brings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from drpo.cli.app import app
from drpo.errors import ConfigError
from drpo.model.loading import load, load_sketch
from support import tiny

pytestmark = pytest.mark.slow

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A tiny model of two layers whose head is not tied."""
    return save(tmp_path / "model", tiny.model(len(tiny.tokenizer()), tie_word_embeddings=False))


def save(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def rewrite(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = directory / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda weights: {f"{prefix}{name}": value for name, value in weights.items()}


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda weights: {**weights, name: change(weights[name])}


Q = "model.layers.0.self_attn.q_proj.weight"


def first(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (prefixed("_orig_mod."), r"missing .* unexpected .*'_orig_mod.', which torch.compile adds"),
        (prefixed("module."), r"missing .*'module.', which Distributed"),
        (prefixed("actor.model."), r"missing .*'actor.model.'"),
        (
            lambda weights: {
                key.replace("layers.1", "layers.1._checkpoint_wrapped_module"): value for key, value in weights.items()
            },
            r"missing .* contain '_checkpoint_wrapped_module.'",
        ),
        (without("layers.1."), r"11 of 25 weights are missing \(model.layers.1"),
        (without("lm_head"), r"1 of 25 weights are missing \(lm_head.weight\)"),
        (without("q_norm"), r"2 of 25 weights are missing"),
        (without("model.norm.weight"), r"missing \(model.norm.weight\)"),
        (
            lambda weights: weights | {"model.layers.2.mlp.up_proj.weight": torch.ones(64, 32)},
            r"1 unexpected .*layers.2.* larger or another model",
        ),
        (lambda weights: weights | {Q.replace("weight", "bias"): torch.ones(32)}, r"unexpected .*q_proj.bias"),
        (changed(Q, lambda tensor: tensor[:16].clone()), r"q_proj.weight: \[16, 32\] in the file, \[32, 32\]"),
        (changed(Q, first(float("nan"))), r"1 weights of .* hold NaN or infinity, for example .*q_proj"),
        (changed("lm_head.weight", first(float("-inf"))), r"NaN or infinity"),
        (changed("model.norm.weight", first(float("nan"))), r"NaN or infinity"),
        (lambda weights: {key: torch.zeros_like(value) for key, value in weights.items()}, r"all zeros"),
        (changed("lm_head.weight", torch.zeros_like), r"lm_head.weight is all zeros"),
        (changed("model.embed_tokens.weight", torch.zeros_like), r"embed_tokens.weight is all zeros"),
        (changed("model.norm.weight", torch.zeros_like), r"logits that are the same for every token"),
        (changed(Q, lambda tensor: (tensor * 1e9).half()), r"NaN or infinity"),
        (changed("lm_head.weight", lambda tensor: tensor + 3e38), r"logits that are not finite"),
        (changed(Q, lambda tensor: tensor.to(torch.int8)), r"stored as I8 .* quantized"),
        (changed(Q, lambda tensor: tensor.to(torch.float8_e4m3fn)), r"stored as F8_E4M3 .* quantized"),
        (lambda weights: weights | {Q + "_scale_inv": torch.ones(1)}, r"unexpected .*weight_scale_inv"),
        (lambda weights: {"other": torch.ones(2)}, r"25 of 25 weights are missing"),
        (lambda weights: {}, r"holds no tensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    directory: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    rewrite(directory, change)
    with pytest.raises(ConfigError, match=message):
        load(str(directory))


def test_what_is_no_defect_is_loaded(directory: Path, tmp_path: Path) -> None:
    """Tied heads that are not saved, buffers that older versions saved, and towers beside the language model."""
    tied = save(tmp_path / "tied", tiny.model(len(tiny.tokenizer())))
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    assert load(str(tied)).notes == ()
    expected = load(str(directory)).model.state_dict()
    rewrite(
        directory,
        lambda weights: (
            weights
            | {
                "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
                "v_head.summary.weight": torch.ones(1, 32),
                "model.vision_tower.patch.weight": torch.ones(3, 3),
            }
        ),
    )
    loaded = load(str(directory))
    assert len(loaded.notes) == 1 and "2 weights" in loaded.notes[0] and "v_head.summary.weight" in loaded.notes[0]
    assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())
    rewrite(directory, changed(Q, torch.zeros_like))
    assert any("1 of 16 matrices are all zeros" in note for note in load(str(directory)).notes)


def test_files_without_the_prefix_of_the_base_model_are_loaded(directory: Path) -> None:
    expected = load(str(directory)).model.state_dict()
    rewrite(directory, lambda weights: {name.removeprefix("model."): value for name, value in weights.items()})
    assert all(torch.equal(value, expected[name]) for name, value in load(str(directory)).model.state_dict().items())


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def link_to_nowhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("blobs/nowhere")


def wrong_header(file: Path) -> None:
    file.write_bytes((10**9).to_bytes(8, "little") + file.read_bytes()[8:])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", cut, r"model.safetensors is cut: it has [\d,]+ bytes"),
        ("model.safetensors", lambda file: file.write_bytes(file.read_bytes() + b"\0" * 9), r"longer than it should"),
        ("model.safetensors", lambda file: file.write_text(POINTER), r"Git LFS pointer.*`git lfs pull`"),
        ("model.safetensors", lambda file: file.write_bytes(b""), r"model.safetensors is empty"),
        ("model.safetensors", lambda file: file.write_bytes(b"\0" * 4096), r"nothing but zeros"),
        ("model.safetensors", wrong_header, r"no safetensors file"),
        ("model.safetensors", lambda file: file.write_text("<!DOCTYPE html><html>"), r"is a web page"),
        ("model.safetensors", lambda file: torch.save({}, file), r"zip archive"),
        ("model.safetensors", lambda file: file.write_bytes(b"GGUF" + b"\3" * 90), r"GGUF"),
        ("model.safetensors", lambda file: file.unlink() or file.mkdir(), r"cannot be read|Is a directory"),
        ("model.safetensors", link_to_nowhere, r"a link to a file that is not there"),
        (
            "config.json",
            lambda file: file.write_text('{"model_type": "qwen3"}'),
            r"holds [\d,]+ numbers, and its config.json describes a model of [\d,]{10,}: weights are missing",
        ),
        ("config.json", lambda file: file.write_text(POINTER), r"config.json is a Git LFS pointer"),
        ("config.json", lambda file: file.write_text(""), r"config.json is empty"),
        ("config.json", lambda file: file.write_text("{"), r"config.json: not JSON"),
        ("config.json", lambda file: file.write_text("[" * 100_000), r"config.json: (not JSON|brackets)"),
        ("config.json", lambda file: file.write_text("[]"), r"config.json holds list"),
        ("config.json", lambda file: file.write_bytes(b"\xff\xfe{}"), r"config.json: not UTF-8"),
        ("config.json", lambda file: file.write_text("{}"), r"names no model_type"),
        ("config.json", lambda file: file.write_text('{"model_type": "qwen3", "hidden_size": "big"}'), r"cannot be"),
        ("config.json", lambda file: edit(file, hidden_size=-1), r"cannot be loaded"),
        ("config.json", lambda file: edit(file, num_attention_heads=0), r"cannot be loaded|another shape"),
        ("config.json", lambda file: edit(file, vocab_size=9), r"another shape .* embed_tokens|lm_head"),
        ("config.json", lambda file: edit(file, num_hidden_layers=1, layer_types=None), r"unexpected .*model.layers.1"),
        ("config.json", lambda file: edit(file, rope_parameters={"rope_type": "nonsense"}), r"cannot be loaded"),
        ("config.json", lambda file: edit(file, model_type=7), r"does not know the model_type"),
        ("tokenizer.json", lambda file: file.write_text(POINTER), r"tokenizer.json is a Git LFS pointer"),
        ("tokenizer.json", lambda file: file.write_text('{"version": "1.0"}'), r"its tokenizer cannot be loaded"),
        ("tokenizer_config.json", lambda file: file.write_text("no"), r"tokenizer_config.json: not JSON"),
        ("generation_config.json", lambda file: file.write_text("no"), r"generation_config.json: not JSON"),
    ],
)
def test_damaged_files_are_named(directory: Path, name: str, damage: Callable[[Path], Any], message: str) -> None:
    damage(directory / name)
    with pytest.raises(ConfigError, match=message) as caught:
        load(str(directory))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


def test_shards(directory: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory, max_shard_size="20KB")
    shards = sorted(directory.glob("model-*.safetensors"))
    assert len(shards) > 2 and torch.equal(load(str(directory)).model.lm_head.weight, model.lm_head.weight)
    index = directory / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    kept = shards[1].read_bytes()
    shards[1].unlink()
    with pytest.raises(ConfigError, match=rf"lacks 1 of the {len(shards)} files .*{shards[1].name}"):
        load(str(directory))
    shards[1].write_bytes(kept[:-5])
    with pytest.raises(ConfigError, match=rf"{shards[1].name} is cut"):
        load(str(directory))
    shards[1].write_bytes(kept)
    for wrong in ({}, {"weight_map": 3}, {"weight_map": {}}):
        index.write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=r"has no weight_map"):
            load(str(directory))
    index.write_text(json.dumps({"weight_map": {"x": "../model.safetensors"}}))
    with pytest.raises(ConfigError, match=r"outside of its directory"):
        load(str(directory))
    listed["weight_map"] = {name: file for name, file in listed["weight_map"].items() if file != shards[1].name}
    index.write_text(json.dumps(listed))
    with pytest.raises(ConfigError, match=r"weights are missing"):
        load(str(directory))
    index.unlink()
    with pytest.raises(ConfigError, match=r"index.json, which lists them, is missing"):
        load(str(directory))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", r"pickles, which are never loaded.*save_pretrained\('NEW'\)"),
        ("model-Q4_K_M.gguf", r"GGUF"),
        ("consolidated.00.pth", r"pickles"),
        ("consolidated.safetensors", r"Hugging Face files"),
        ("diffusion_pytorch_model.safetensors", r"diffusers"),
        ("adapter_model.safetensors", r"an adapter"),
        ("tf_model.h5", r"TensorFlow"),
        ("weights.safetensors", r"no index"),
        ("README.md", r"no weights"),
    ],
)
def test_other_formats_come_with_the_way_to_convert_them(directory: Path, name: str, message: str) -> None:
    (directory / "model.safetensors").rename(directory / name)
    with pytest.raises(ConfigError, match=message):
        load(str(directory))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({"quantization_config": {"quant_method": method}}, rf"quantized weights \({method}")
            for method in ("gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8", "mxfp4", "hqq")
        ),
        ({"quantization_config": "int8"}, r"quantized weights \(int8"),
        ({"text_config": {"quantization_config": {"bits": 4}}}, r"quantized weights \(unknown"),
        ({"model_type": "t5", "is_encoder_decoder": True}, r"encoder-decoder model \(t5"),
        ({"model_type": "bart", "is_encoder_decoder": True}, r"encoder-decoder model \(bart"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, r"type vit \(architectures: \['ViTModel'\]\)"),
        ({"model_type": "clip"}, r"not a causal LM"),
        ({"model_type": "whisper"}, r"encoder-decoder|not a causal LM|cannot be loaded"),
        ({"model_type": "qwen99"}, r"does not know the model_type 'qwen99' .*A newer transformers"),
        ({"_class_name": "UNet2DConditionModel"}, r"diffusers model"),
        ({"attn_implementation": "someone/kernel"}, r"kernel from the Hub"),
    ],
)
def test_other_kinds_of_model_are_named(directory: Path, changes: dict[str, Any], message: str) -> None:
    edit(directory / "config.json", **changes)
    with pytest.raises(ConfigError, match=message):
        load(str(directory))


@pytest.mark.parametrize("decoder", [False, True])
def test_an_encoder_is_no_causal_model(tmp_path: Path, decoder: bool) -> None:
    """transformers loads BERT as a causal LM whose tokens see later ones, unless it is told to be a decoder."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 20,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "eos_token_id": 0,
    }
    kind = transformers.BertLMHeadModel if decoder else transformers.BertForMaskedLM
    folder = save(tmp_path / "bert", kind(transformers.BertConfig(**shape, is_decoder=decoder)))
    if decoder:
        load(str(folder))
        return
    with pytest.raises(ConfigError, match=r"an encoder .* sees later tokens"):
        load(str(folder))


def test_a_decoder_whose_configuration_does_not_say_so_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, eos_token_id=0
    )
    assert config.is_decoder is False
    load(str(save(tmp_path / "neox", transformers.GPTNeoXForCausalLM(config))))


EVIL = """
from pathlib import Path
(Path(__file__).parent / "ran").write_text("x")
Path({marker!r}).write_text("x")
from transformers import PretrainedConfig, Qwen3Config, Qwen3ForCausalLM

class OwnConfig(Qwen3Config):
    model_type = "own"

class OwnModel(Qwen3ForCausalLM):
    config_class = OwnConfig
"""


def bring_code(directory: Path, marker: Path) -> None:
    """An unknown model type whose configuration and class lie in a module beside it; and a generation loop."""
    (directory / "own.py").write_text(EVIL.format(marker=str(marker)))
    (directory / "custom_generate").mkdir()
    (directory / "custom_generate" / "generate.py").write_text(EVIL.format(marker=str(marker)))
    edit(
        directory / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )


@pytest.mark.parametrize(
    "command",
    [
        ["train", "model={}", "task=copy", "steps=1", "--dry-run"],
        ["train", "model={}", "task=copy", "steps=1"],
        ["eval", "{}", "task=copy"],
        ["export", "{}", "--out", "out"],
        ["filter", "{}", "task=jsonl", "task.path=problems.jsonl", "--out", "kept.jsonl"],
    ],
)
def test_code_of_a_model_is_never_run_unasked(
    directory: Path, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    bring_code(directory, marker)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problems.jsonl").write_text(
        "".join(json.dumps({"prompt": letter, "answer": letter}) + "\n" for letter in "abcd")
    )
    found = CliRunner().invoke(app, [part.format(directory) for part in command], input="y\n" * 9)
    assert not marker.exists() and "[y/N]" not in found.output
    if "--dry-run" in command:
        assert "trust_remote_code" in found.output
    else:
        assert isinstance(found.exception, ConfigError) and "trust_remote_code=true" in str(found.exception)


def test_code_of_a_known_type_and_of_a_tokenizer_is_never_run_unasked(directory: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bring_code(directory, marker)
    edit(directory / "config.json", model_type="qwen3")
    edit(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]})
    load(str(directory))
    load_sketch(directory)
    assert not marker.exists()


def test_code_runs_if_it_is_asked_for_and_that_is_said(directory: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bring_code(directory, marker)
    shutil.rmtree(directory / "custom_generate")
    run = tmp_path / "run"
    program = [
        sys.executable,
        "-m",
        "drpo",
        "train",
        f"model={directory}",
        "task=copy",
        "steps=1",
        "eval_examples=2",
        "prompts_per_step=2",
        "group_size=2",
        "updates_per_step=1",
        "max_new_tokens=2",
        "trust_remote_code=true",
        "device=cpu",
        "--out",
        str(run),
    ]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )
    assert done.returncode == 0, done.stderr
    assert marker.exists() and "trust_remote_code=true" in done.stdout
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["trust_remote_code"] is True and manifest["model"]["directory"] == str(directory)
