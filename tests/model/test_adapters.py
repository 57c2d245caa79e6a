"""Adapters of every kind: merged exactly as peft merges them, or refused; never passed over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from drpo.cli.app import app
from drpo.errors import CheckpointError, ConfigError
from drpo.model.export import export_model
from drpo.model.loading import load
from drpo.model.lora_settings import Lora
from drpo.model.policy import load_policy
from drpo.model.source import embedded_directory
from support import command, tiny

pytestmark = pytest.mark.slow

peft: Any = pytest.importorskip("peft", reason="pip install -e '.[lora]'")

CPU = torch.device("cpu")
IDS = [[3, 4, 5, 9, 2]]


def save_base(folder: Path, tied: bool) -> Path:
    network = tiny.model(len(tiny.tokenizer()), sharpness=3.0, tie_word_embeddings=tied)
    network.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {tied: save_base(folder / str(tied), tied) for tied in (False, True)}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits


def adapt(base: Path, config: Any) -> Any:
    torch.manual_seed(1)
    return peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)


def save_adapter(folder: Path, base: Path, config: Any, trained: bool = True) -> torch.Tensor:
    """Write an adapter whose weights are as if trained; return the logits of peft's own merged model."""
    adapted = adapt(base, config)
    if trained:
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * (0.02 if "magnitude" in name else 0.1))
    adapted.save_pretrained(folder)
    return logits(adapted.eval().merge_and_unload())


def lora(**settings: Any) -> Callable[[], Any]:
    return lambda: peft.LoraConfig(
        **{
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "task_type": "CAUSAL_LM",
            **settings,
        }
    )


def other(name: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(peft, name)(**{"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **settings})


MERGED = {
    "plain": lora(),
    "all linear": lora(target_modules="all-linear"),
    "by pattern": lora(target_modules=r".*\.1\.self_attn\.(q|k)_proj"),
    "rslora": lora(use_rslora=True),
    "rank_pattern": lora(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 1}),
    "layers_to_transform": lora(layers_to_transform=[1], layers_pattern="layers"),
    "dropout": lora(lora_dropout=0.5),
    "dora": lora(use_dora=True),
    "biases": lora(bias="all"),
    "pissa": lora(init_lora_weights="pissa"),
    "modules_to_save": lora(modules_to_save=["lm_head"]),
    "embeddings to save": lora(modules_to_save=["embed_tokens"]),
    "norms to save": lora(modules_to_save=["norm"]),
    "head": lora(target_modules=["q_proj", "lm_head"]),
    "embeddings": lora(target_modules=["q_proj", "embed_tokens"]),
    "tokens": lora(trainable_token_indices=[3, 4]),
    "ia3": other("IA3Config", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "oft": other("OFTConfig", oft_block_size=8, r=0),
    "boft": other("BOFTConfig", boft_block_size=8),
    "loha": other("LoHaConfig", r=2),
    "lokr": other("LoKrConfig", r=2),
    "adalora": other("AdaLoraConfig", total_step=10),
    "hra": other("HRAConfig", r=2),
    "vera": other("VeraConfig", r=4, target_modules=["q_proj"]),
    "fourier": other("FourierFTConfig", n_frequency=20),
    "layer norms": other("LNTuningConfig", target_modules=["norm"]),
}


@pytest.mark.parametrize("kind", MERGED)
def test_merged_exactly_as_peft_does(kind: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "adapter", bases[False], MERGED[kind]())
    exported = export_model(str(tmp_path / "adapter"), tmp_path / "plain")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert exported.merged and torch.allclose(logits(found), expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(logits(load_policy(str(tmp_path / "adapter"), CPU).model), expected, rtol=1e-5, atol=1e-5)
    assert float((expected - logits(load_policy(str(bases[False]), CPU).model)).abs().max()) > 1e-2


def test_other_layouts_of_weights_are_merged_as_peft_does(tmp_path: Path) -> None:
    """Transposed linear layers, biases of adapters, and stacked experts."""
    torch.manual_seed(0)
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=20, n_embd=32, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
        )
    )
    qwen2 = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=20,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            eos_token_id=0,
        )
    )
    for name, network in (("gpt2", gpt2), ("qwen2", qwen2)):
        network.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    experts = lora(target_modules=["q_proj"], target_parameters=["experts.gate_up_proj", "experts.down_proj"])
    for name, base, config in (
        ("transposed", tmp_path / "gpt2", lora(target_modules=["c_attn"], fan_in_fan_out=True)),
        ("lora_bias", tmp_path / "qwen2", lora(target_modules=["q_proj"], lora_bias=True)),
        ("experts", embedded_directory("moe"), experts),
    ):
        expected = save_adapter(tmp_path / f"{name} adapter", base, config())
        export_model(str(tmp_path / f"{name} adapter"), tmp_path / name)
        found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert torch.allclose(logits(found), expected, rtol=1e-5, atol=1e-5), name


def test_what_peft_cannot_merge_is_refused(bases: dict[bool, Path], tmp_path: Path) -> None:
    adapt(bases[False], lora(lora_bias=True)()).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"cannot be merged .*no bias"):
        load_policy(str(tmp_path / "adapter"), CPU)


@pytest.mark.parametrize("kind", ["head", "modules_to_save", "embeddings", "embeddings to save", "tokens"])
def test_tied_weights_are_merged_as_adapted_or_refused(kind: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    """What an adapter does to one of two tied weights cannot be merged into both."""
    save_adapter(tmp_path / "adapter", bases[True], MERGED[kind]())
    adapted = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(bases[True]), tmp_path / "adapter"
    )
    try:
        export_model(str(tmp_path / "adapter"), tmp_path / "plain")
    except CheckpointError as error:
        assert "tied" in str(error) and not (tmp_path / "plain").exists()
    else:
        found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
        assert torch.allclose(logits(found), logits(adapted.eval()), rtol=1e-5, atol=1e-5)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda weights: {key.replace(old, new, 1): weights[key] for key in weights})


def dropped(part: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda weights: {key: weights[key] for key in weights if part not in key})


def scaled(part: str, factor: float) -> Callable[[Path], None]:
    return lambda folder: rewrite(
        folder, lambda weights: {key: weights[key] * (factor if part in key else 1) for key in weights}
    )


def cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def written(text: str, name: str = "adapter_config.json") -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "module": (renamed("base_model", "module.base_model"), r"belong to no layer"),
    "no prefix": (renamed("base_model.model.", ""), r"missing|belong to no layer"),
    "twice": (renamed("base_model.model.", "base_model.model.base_model.model."), r"belong to no layer"),
    "compiled": (renamed("base_model.model.", "base_model.model._orig_mod."), r"belong to no layer"),
    "one layer": (dropped("layers.1."), r"6 weights that its configuration asks for are missing"),
    "one matrix": (dropped("layers.1.mlp.up_proj.lora_B"), r"1 weights that its configuration asks for are missing"),
    "too many": (
        lambda folder: rewrite(
            folder,
            lambda weights: weights | {"base_model.model.model.layers.7.mlp.up_proj.lora_A.weight": torch.ones(4, 32)},
        ),
        r"belong to no layer",
    ),
    "untargeted": (lambda folder: edit(folder, target_modules=["q_proj"]), r"belong to no layer"),
    "no target": (lambda folder: edit(folder, target_modules=["c_attn"]), r"cannot be merged|does not fit"),
    "other rank": (lambda folder: edit(folder, r=2), r"lora_.* is \[4, 32\], the model needs \[2, 32\]|size mismatch"),
    "nan": (scaled("layers.0", float("nan")), r"NaN or infinity"),
    "b zero": (scaled("lora_B", 0), r"changes nothing"),
    "a zero": (scaled("lora_A", 0), r"changes nothing"),
    "alpha zero": (lambda folder: edit(folder, lora_alpha=0), r"changes nothing|damaged"),
    "cut": (cut, r"is cut"),
    "empty": (written("", "adapter_model.safetensors"), r"is empty"),
    "pickled": (pickled, r"no adapter_model.safetensors.* It holds adapter_model.bin"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), r"no adapter_model.safetensors"),
    "config cut": (written('{"peft_type": "LO'), r"not JSON"),
    "config list": (written("[]"), r"holds list"),
    "unknown kind": (lambda folder: edit(folder, peft_type="NEWTON"), r"does not know the peft_type 'NEWTON'"),
    "no kind": (lambda folder: edit(folder, peft_type=None), r"does not know the peft_type"),
    "unknown setting": (lambda folder: edit(folder, use_newton=True), r"does not know use_newton"),
    "code": (lambda folder: edit(folder, megatron_config={"a": 1}, megatron_core="os"), r"megatron_config"),
    "no base": (lambda folder: edit(folder, base_model_name_or_path=None), r"does not name its base .*model=DIR"),
    "base no text": (lambda folder: edit(folder, base_model_name_or_path=3), r"no text"),
    "base gone": (lambda folder: edit(folder, base_model_name_or_path="/gone/base"), r"/gone/base.* with model=DIR"),
    "settings of wrong type": (lambda folder: edit(folder, r="four"), r"adapter"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_adapter_is_refused_in_one_line(damage: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", bases[True], lora()())
    change, message = DAMAGED[damage]
    change(tmp_path / "adapter")
    for action in (
        lambda: load_policy(str(tmp_path / "adapter"), CPU),
        lambda: export_model(str(tmp_path / "adapter"), tmp_path / "plain"),
    ):
        with pytest.raises((CheckpointError, ConfigError), match=message) as caught:
            action()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 900
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


@pytest.mark.parametrize("kind", ["dora", "ia3", "oft", "modules_to_save"])
@pytest.mark.parametrize(
    "change", [renamed("base_model", "module.base_model"), dropped("layers.1."), cut], ids=["prefix", "layer", "cut"]
)
def test_so_is_one_of_another_kind(
    kind: str, change: Callable[[Path], None], bases: dict[bool, Path], tmp_path: Path
) -> None:
    save_adapter(tmp_path / "adapter", bases[False], MERGED[kind]())
    change(tmp_path / "adapter")
    with pytest.raises((CheckpointError, ConfigError), match=r"missing|belong to no layer|is cut|cannot be merged"):
        load(str(tmp_path / "adapter"))


@pytest.mark.parametrize("kind", ["ia3", "oft", "loha", "plain", "dora"])
def test_an_adapter_that_was_never_trained_is_refused(kind: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", bases[True], MERGED[kind](), trained=False)
    with pytest.raises(CheckpointError, match=r"changes nothing"):
        load_policy(str(tmp_path / "adapter"), CPU)


@pytest.mark.parametrize("name", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_prompts_cannot_be_merged(name: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    config = getattr(peft, name)(task_type="CAUSAL_LM", num_virtual_tokens=3)
    adapt(bases[True], config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"adds prompts, which cannot be merged"):
        load(str(tmp_path / "adapter"))


def test_a_base_that_moved_is_named_anew(bases: dict[bool, Path], tmp_path: Path) -> None:
    moved = shutil.copytree(bases[False], tmp_path / "old")
    expected = save_adapter(tmp_path / "adapter", moved, lora()())
    moved.rename(tmp_path / "new")
    with pytest.raises(ConfigError, match=r"which is not here any more. Say where it is now with model=DIR"):
        load_policy(str(tmp_path / "adapter"), CPU)
    model = load_policy(str(tmp_path / "adapter"), CPU, base=str(tmp_path / "new")).model
    assert torch.allclose(logits(model), expected, atol=1e-5)
    out = tmp_path / "plain"
    command = ["export", str(tmp_path / "adapter"), f"model={tmp_path / 'new'}", "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert torch.allclose(logits(transformers.AutoModelForCausalLM.from_pretrained(out)), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"no such directory"):
        load_policy(str(tmp_path / "adapter"), CPU, base=str(tmp_path / "older"))
    with pytest.raises(ConfigError, match=r"base .* would be ignored"):
        load_policy(str(tmp_path / "new"), CPU, base=str(bases[False]))
    found = CliRunner().invoke(app, ["export", str(tmp_path / "new"), "seed=1", "--out", str(tmp_path / "x")])
    assert isinstance(found.exception, ConfigError) and "seed" in str(found.exception)


def test_an_adapter_on_an_adapter_is_refused(bases: dict[bool, Path], tmp_path: Path) -> None:
    save_adapter(tmp_path / "one", bases[True], lora()())
    save_adapter(tmp_path / "two", bases[True], lora()())
    edit(tmp_path / "two", base_model_name_or_path=str(tmp_path / "one"))
    with pytest.raises(ConfigError, match=r"is itself an adapter. Merge that first"):
        load(str(tmp_path / "two"))


def test_a_fresh_adapter_may_go_on_training(bases: dict[bool, Path], tmp_path: Path) -> None:
    save_adapter(tmp_path / "plain", bases[True], lora()(), trained=False)
    policy = load_policy(str(tmp_path / "plain"), CPU, lora=Lora(rank=4))
    assert len(policy.trained_parameters()) == 2 * 3 * 2
    save_adapter(tmp_path / "dora", bases[True], lora(use_dora=True)())
    with pytest.raises(CheckpointError, match=r"is not plain LoRA and cannot be trained"):
        load_policy(str(tmp_path / "dora"), CPU, lora=Lora(rank=4))


KILLED = """
import os, signal, sys
import transformers
whole = transformers.PreTrainedModel.save_pretrained

def save(self, folder, *rest, **settings):
    whole(self, folder, *rest, **settings)
    os.kill(os.getpid(), signal.SIGKILL)

transformers.PreTrainedModel.save_pretrained = save
from pathlib import Path
from drpo.model.export import export_model
export_model(sys.argv[1], Path(sys.argv[2]))
"""


def test_an_export_that_is_killed_leaves_nothing_under_its_name(bases: dict[bool, Path], tmp_path: Path) -> None:
    out = tmp_path / "out [x]"
    done = command.python(["-c", KILLED, bases[True], out])
    assert done.returncode == -9, done.stderr
    assert not out.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out [x].writing-") and (left / "model.safetensors").is_file()
    out.mkdir()  # an empty directory is no obstacle
    export_model(str(bases[True]), out)
    assert [path.name for path in tmp_path.iterdir()] == [out.name] and (out / "tokenizer.json").is_file()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("kept")
    for taken in ("out [x]", "link", "file"):
        with pytest.raises(ConfigError, match=r"exists"):
            export_model(str(bases[True]), tmp_path / taken)
    assert (tmp_path / "file").read_text() == "kept"
