"""Real models and tokenizers small enough to make in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

END = "<|endoftext|>"


def tokenizer(characters: str = "abcd\n 0123456789:") -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {END: 0, "<unk>": 1} | {character: i + 2 for i, character in enumerate(dict.fromkeys(characters))}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    letters.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=letters, eos_token=END, pad_token=END, unk_token="<unk>", model_max_length=256
    )


def model(vocabulary: int = 20, seed: int = 0, sharpness: float = 1.0, **changes: Any) -> Qwen3ForCausalLM:
    """A random Qwen3 of a few thousand parameters; ``sharpness`` > 1 makes its distributions less uniform."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
        "bos_token_id": None,
        "pad_token_id": 0,
    }
    network = Qwen3ForCausalLM(Qwen3Config(**(settings | changes)))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(sharpness)
    return network.eval()


def save_copyist(directory: Path, alphabet: str = "abcd", length: int = 2, steps: int = 150) -> Path:
    """A Hugging Face directory whose model half knows the `copy` task: it learned to copy, with every letter
    replaced by a random one half of the time."""
    letters = tokenizer()
    network = model(len(letters))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    ids = torch.tensor(letters.convert_tokens_to_ids(list(alphabet)))
    for _ in range(steps):
        prompt = ids[torch.randint(len(ids), (64, length), generator=generator)]
        noise = ids[torch.randint(len(ids), (64, length), generator=generator)]
        answer = torch.where(torch.rand(64, length, generator=generator) < 0.5, noise, prompt)
        line = torch.tensor(letters.convert_tokens_to_ids(["\n"])).expand(64, 1)
        rows = torch.cat([prompt, line, answer, torch.zeros(64, 1, dtype=torch.int64)], dim=1)
        labels = rows.clone()
        labels[:, : length + 1] = -100
        loss = network(input_ids=rows, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(directory)
    letters.save_pretrained(directory)
    return directory
