"""Models of real shapes with random weights, made from nothing: no download, no weights to carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def _llama(hidden: int, inner: int, layers: int, heads: int, keys: int, vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
    }


#: Name → config.json: those of SmolLM2-135M and Qwen3-0.6B, sizes below them, and two so small that their figures mean
#: nothing.
SHAPES: dict[str, dict[str, Any]] = {
    "Llama-1M": _llama(128, 344, 4, 4, 2, 384),
    "Llama-3M": _llama(192, 512, 6, 6, 2, 4_096),
    "Llama-18M": _llama(320, 864, 10, 5, 5, 16_384),
    "Llama-54M": _llama(448, 1_216, 16, 7, 7, 32_768),
    "SmolLM2-135M": {**_llama(576, 1_536, 30, 9, 3, 49_152), "rope_theta": 100_000.0},
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "rope_theta": 1_000_000.0,
    },
    "tiny Llama": _llama(24, 32, 2, 3, 1, 160),
    "tiny Qwen3": {
        "model_type": "qwen3",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 160,
    },
}
END = "<|end|>"
CHAT = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def make_model(directory: Path, name: str) -> Path:
    """A Hugging Face directory with a model of the shape ``name``, always the same weights, and a tokenizer of as many
    tokens: one for each printable character, the others in brackets."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(SHAPES[name])
    config = AutoConfig.for_model(
        shape.pop("model_type"),
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        **shape,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    make_tokenizer(shape["vocab_size"]).save_pretrained(directory)
    return directory


def make_tokenizer(size: int) -> Any:
    """A tokenizer of ``size`` tokens with a plain chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = ["\n", *map(chr, range(32, 127))]
    names = [END, "<|unknown|>", *characters]
    names += [f"[{index}]" for index in range(len(names), size)]
    letters = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<|unknown|>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    letters.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=letters,
        eos_token=END,
        pad_token=END,
        unk_token="<|unknown|>",
        chat_template=CHAT,
        model_max_length=8192,
    )
