"""A Llama in a GGUF file as a plain Hugging Face directory, in float32."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError
from drpo.installation import install

#: Libraries that transformers asks for.
NEEDED = ("gguf", "accelerate")
#: ``tokenizer.ggml.pre`` of the tokenizers whose words :func:`load_tokenizer` makes.
WORDS = "smollm"
#: Settings that say where the weights were read from.
_OF_THE_FILE = ("quantization_config", "_name_or_path", "_model_name_or_path")


def convert(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer of the file ``gguf`` into ``folder``.

    transformers reads the quantized weights as float32 numbers, and would write none of them as long as its model
    remembers that they were quantized: a new model gets them.

    Raises:
        ConfigError: a library is not installed, or the file's tokenizer is of another kind.
    """
    import torch
    import transformers

    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"transformers reads a GGUF file with the libraries {' and '.join(NEEDED)}; {missing[0]} is not installed. "
            + install("demo-llm")
        )
    transformers.utils.logging.disable_progress_bar()
    read = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = read.config.to_dict()
    config = transformers.LlamaConfig(**{key: value for key, value in settings.items() if key not in _OF_THE_FILE})
    plain = transformers.LlamaForCausalLM(config)
    plain.load_state_dict(read.state_dict())
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    load_tokenizer(gguf, config.max_position_embeddings).save_pretrained(folder)


def load_tokenizer(gguf: Path, positions: int) -> Any:
    """The tokenizer of the file. SmolLM2 makes a word of each digit, so that " 12" are three tokens; transformers
    splits words as GPT-2 does, and gets other tokens for two spaces before a digit.

    Raises:
        ConfigError: the file's tokenizer is of another kind.
    """
    import transformers
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    words = None if field is None else field.contents()
    if words != WORDS:
        raise ConfigError(f"{gguf} has a tokenizer of the kind {words!r}; only {WORDS!r} is converted")
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, model_max_length=positions)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer
