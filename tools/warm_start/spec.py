"""How one embedded base is made: what it learns, its shape, and how long it trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import transformers

#: Ends every text; the tokenizer's first token. It pads, too.
END = "<|endoftext|>"
END_ID = 0
#: The label of a token that is not learned.
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A base of any kind; a subclass says what it learns from (:meth:`texts`).

    A base may start from another that ships, ``start``: with its tokenizer, and with those of its parameters whose name
    contains one of ``takes`` and whose shape fits.

    ``architecture`` names a configuration class of transformers, which takes ``shape`` beside what all bases share.
    ``whole_words`` are tokens of their own in the tokenizer of ``vocabulary`` tokens. ``steps`` batches of ``batch``
    texts are learned, the texts of ``pool`` batches sorted by length; ``max_new_tokens`` is how long a response may be
    when the base is measured.
    """

    task: str
    task_parameters: dict[str, Any]
    wrong_share: float
    architecture: str = "Qwen3Config"
    shape: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    takes: tuple[str, ...] = ()
    vocabulary: int
    whole_words: tuple[str, ...] = ()
    hidden: int = 128
    layers: int = 4
    steps: int
    batch: int
    pool: int = 1
    learning_rate: float = 3e-3
    max_new_tokens: int = 64
    seed: int = 0

    def texts(self) -> Iterator[tuple[str, str]]:
        """Endless pairs: what is given, and what is learned behind it."""
        raise NotImplementedError

    def corpus(self, texts: Iterator[tuple[str, str]]) -> Iterator[str]:
        """What the tokenizer is made from, out of the beginning of ``texts``."""
        raise NotImplementedError

    def loss(self, model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What is minimised for a batch ``[B, T]`` of token ids and labels."""
        return model(input_ids=ids, labels=labels).loss

    def config(self) -> transformers.PreTrainedConfig:
        """The model's configuration."""
        shared = {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": self.hidden // 4,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "eos_token_id": END_ID,
            "bos_token_id": None,
            "pad_token_id": END_ID,
        }
        return getattr(transformers, self.architecture)(**shared, **self.shape)

    def described(self) -> dict[str, Any]:
        """Plain values of every field."""
        return asdict(self)
