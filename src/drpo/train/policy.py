"""The policy under training: loading it, and recomputing log π of sampled responses.

Shapes: ``B`` sequences, ``T`` positions, ``N`` response tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drpo.errors import ConfigError
from drpo.kernels import token_logprobs

ASSETS = Path(__file__).resolve().parent.parent / "assets"
#: A directory without any of these has no tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
#: Models that ship with the package, by name.
EMBEDDED = {"arithmetic": ASSETS / "arithmetic"}


@dataclass(frozen=True, slots=True)
class Sequences:
    """One response with its prompt, as the trainer sees it."""

    prompt_ids: Sequence[int]
    token_ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)


class Policy:
    """A causal LM with its tokenizer.

    Args:
        model: any causal LM of transformers.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any):
        self.model = model
        self.tokenizer = tokenizer
        self.stop_ids = _stop_ids(model, tokenizer)
        self._plain_head = self._head_is_plain()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a task's prompt: the tokenizer's chat template with a generation prompt if it has one, else
        the prompt and a line end."""
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.tokenizer(prompt + "\n")["input_ids"]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a response, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def response_logprobs(
        self, sequences: Sequence[Sequences], temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log π of every response token of ``sequences``, in order.

        Returns:
            ``(logprobs, entropy)``, ``[N]`` each in nats; ``logprobs`` carries the gradient.
        """
        ids, at, target = self._positions(sequences)
        if self._plain_head:
            hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            head = self.model.get_output_embeddings().weight
            return token_logprobs(hidden[at[0], at[1]], head, target, temperature)
        logprobs, entropy = self._distributions(ids, at, temperature)
        return logprobs.gather(1, target.unsqueeze(1)).squeeze(1), entropy

    def topk_logprobs(
        self, sequences: Sequence[Sequences], temperature: float, topk_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`response_logprobs`, and log π of other tokens at the same positions.

        Holds whole distributions ``[N, V]``: smaller micro-batches make them fit.

        Args:
            topk_ids: ``[N, K]`` int64, tokens of the vocabulary for every response token of ``sequences``.

        Returns:
            ``(logprobs, entropy, topk_logprobs, topk_is_sampled)``, ``[N]``, ``[N]``, ``[N, K]`` and ``[N, K]``
            (bool: which of the other tokens is the sampled one).
        """
        ids, at, target = self._positions(sequences)
        logprobs, entropy = self._distributions(ids, at, temperature)
        target, topk_ids = target.unsqueeze(1), topk_ids.to(self.device)
        return logprobs.gather(1, target).squeeze(1), entropy, logprobs.gather(1, topk_ids), topk_ids == target

    def _positions(self, sequences: Sequence[Sequences]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids ``[B, T]``, the position before each response token as (row, column) ``[2, N]``, and these tokens
        ``[N]``."""
        rows, columns, targets = [], [], []
        width = max(len(sequence) for sequence in sequences)
        ids = torch.zeros(len(sequences), width, dtype=torch.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor([*sequence.prompt_ids, *sequence.token_ids])
            start = len(sequence.prompt_ids) - 1
            rows += [row] * len(sequence.token_ids)
            columns += range(start, start + len(sequence.token_ids))
            targets += sequence.token_ids
        # Padding stands on the right, where a causal model never looks: no attention mask is needed.
        at, target = torch.tensor([rows, columns]), torch.tensor(targets)
        return ids.to(self.device), at.to(self.device), target.to(self.device)

    def _distributions(
        self, ids: torch.Tensor, at: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log π ``[N, V]`` at the positions ``at`` ``[2, N]``, and its entropy ``[N]``."""
        logits = self.model(input_ids=ids, use_cache=False).logits[at[0], at[1]].float() / temperature
        logprobs = logits.log_softmax(-1)
        return logprobs, torch.distributions.Categorical(logits=logprobs.detach()).entropy()

    @torch.no_grad()
    def _head_is_plain(self) -> bool:
        """Whether logits are hidden · weightᵀ and no more (no bias, soft cap or scale): then whole logits are never
        formed."""
        head = self.model.get_output_embeddings()
        if not isinstance(head, torch.nn.Linear) or head.bias is not None:
            return False
        probe = torch.arange(2, device=self.device).unsqueeze(0)
        hidden = self.model.base_model(input_ids=probe, use_cache=False).last_hidden_state
        if hidden.shape[-1] != head.weight.shape[1]:
            return False
        return torch.allclose(hidden @ head.weight.T, self.model(input_ids=probe, use_cache=False).logits, atol=1e-4)


def micro_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of ``lengths`` in groups of like length whose padded size stays within ``max_tokens``.

    A sequence longer than that goes alone.
    """
    part: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if part and (len(part) + 1) * lengths[index] > max_tokens:
            yield part
            part = []
        part.append(index)
    if part:
        yield part


def load_policy(name: str, device: torch.device) -> Policy:
    """The policy stored in a Hugging Face directory, or an embedded one (``embedded:NAME``), in float32.

    Raises:
        ConfigError: the name is unknown, the directory is missing, or it lacks a model or tokenizer.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    directory = _directory(name)
    if not (directory / "config.json").is_file():
        raise ConfigError(f"model: {directory} is no Hugging Face model directory (no config.json). Give a directory "
                          "that model.save_pretrained wrote, or embedded:arithmetic.")
    if not any((directory / file).is_file() for file in TOKENIZER_FILES):
        raise ConfigError(f"model: {directory} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json). Save "
                          "it there with tokenizer.save_pretrained.")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, local_files_only=True, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model: {directory} cannot be loaded as a causal LM: {error}") from error
    model.to(device)  # pyright: ignore[reportArgumentType]
    return Policy(model.eval(), tokenizer)


def _directory(name: str) -> Path:
    if name.startswith("embedded:"):
        key = name.removeprefix("embedded:")
        if key not in EMBEDDED:
            raise ConfigError(f"model: no embedded model {key!r}. Known: {', '.join(EMBEDDED)}.")
        return EMBEDDED[key]
    directory = Path(name).expanduser()
    if not directory.is_dir():
        raise ConfigError(f"model: {name} is not a directory. Models are read from local Hugging Face directories; "
                          "download it first (for example with `hf download`), or use embedded:arithmetic.")
    return directory


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a response: the tokenizer's, and those of the model's generation settings."""
    ids: set[int] = set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
    for config in (model.generation_config, model.config):
        value = getattr(config, "eos_token_id", None)
        ids.update(v for v in (value if isinstance(value, list | tuple) else [value]) if v is not None)
    if not ids:
        raise ConfigError("model: neither tokenizer nor model names an end-of-sequence token, so that no response "
                          "would ever stop. Set tokenizer.eos_token and save it again.")
    return frozenset(ids)
