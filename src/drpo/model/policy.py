"""The policy under training: loading it, and recomputing log π of sampled responses.

Shapes: ``B`` sequences, ``T`` positions, ``N`` response tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from drpo.errors import ConfigError
from drpo.kernels import plain_head, token_logprobs
from drpo.kernels.products import wide_dtype
from drpo.model.forward import (
    PADDED,
    SHARED,
    Prompts,
    Sequences,
    at_places,
    distinct_prompts,
    in_groups,
    padded_experts,
    positions,
    response_states,
    supports,
    targets,
)
from drpo.model.gradient_checkpointing import checkpoint_activations
from drpo.model.loading import load
from drpo.model.lora import add_adapter, is_adapted
from drpo.model.lora_settings import Lora
from drpo.model.master_weights import MasterWeights
from drpo.model.precision import Precision
from drpo.model.probe import without_cache
from drpo.model.prompts import PromptEncoder, PromptSettings
from drpo.model.response_text import tokens_outside_text
from drpo.model.rope_regimes import RopeRegimes
from drpo.model.routers import Routers
from drpo.model.source import ModelSource
from drpo.model.start_check import Passes, check_passes
from drpo.support import OUTSIDE


class Policy:
    """A causal LM with its tokenizer.

    Args:
        model: any causal LM of transformers.
        tokenizer: its tokenizer.
        masters: the float32 weights behind a model that computes in less.
        source: where it was loaded from.
        notes: what the user should know of its files.
        passes: what the start check found before the model computed in less; default: it is made here.

    ``head`` is the LM head ``[V, H]`` if logits are hidden · headᵀ and no more, else None; ``way`` is how hidden states
    are made (:data:`drpo.model.forward.PACKED` and so on); ``passes`` is what the start check found;
    ``routers`` are those of its experts; ``prompt_settings`` how the tokenizer's chat template is used.

    Raises:
        ConfigError: the model is no causal LM over token ids.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        masters: MasterWeights | None = None,
        source: ModelSource | None = None,
        notes: Sequence[str] = (),
        passes: Passes | None = None,
    ):
        self.model = model
        self.source, self.notes = source, tuple(notes)
        self.tokenizer = tokenizer
        self.prompt_settings = PromptSettings()
        self.masters = masters
        self.stop_ids = _stop_ids(model, tokenizer)
        self._outside_text = tokens_outside_text(tokenizer, self.stop_ids)
        self.passes = check_passes(model) if passes is None else passes
        self.head: torch.Tensor | None = plain_head(model)
        self.way = self.passes.trainer.way
        self.regimes = RopeRegimes.of(model)
        self.routers = Routers(model)
        self._replays_routing = False
        self._prompts: Prompts | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def weights(self) -> dict[str, torch.Tensor]:
        """What the model computes with, by name in its state dict, tied weights once: the parameters themselves."""
        return dict(self.model.named_parameters())

    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """What an optimizer steps; in float32, whatever the model computes in."""
        if self.masters is not None:
            return self.masters.parameters
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def saved_weights(self) -> AbstractContextManager[None]:
        """While this is entered, the model holds the weights that are trained, to be saved."""
        return nullcontext() if self.masters is None else self.masters.in_place()

    def replay_routing(self) -> None:
        """From now on, recompute every sequence with the experts that its rollout chose for it (``routers`` have to
        allow it). Prompts are not shared any more: the same prompt may have been routed in different ways."""
        assert self.routers.problem is None
        self.routers.replay_when_recomputing(self.model)
        self._replays_routing = True
        if self.passes.pads:
            self.way = PADDED

    def replaying(self, sequences: Sequence[Sequences]) -> AbstractContextManager[None]:
        """Around a forward pass over the whole of ``sequences`` (see :func:`drpo.model.forward.positions`): with the
        experts of their rollouts, where the policy replays them."""
        if not self._replays_routing:
            return nullcontext()
        return self.routers.replaying(padded_experts(sequences).flatten(0, 1).to(self.device))

    def encode(self, prompt: str, chat: bool = True, turns: Sequence[Mapping[str, str]] = ()) -> list[int]:
        """Token ids of a task's prompt (:meth:`drpo.model.prompts.PromptEncoder.encode`)."""
        return self.prompt_encoder.encode(prompt, chat, turns)

    @property
    def prompt_encoder(self) -> PromptEncoder:
        """What makes token ids of prompts."""
        rows = self.model.get_input_embeddings().weight.shape[0]
        return PromptEncoder(self.tokenizer, rows, self.prompt_settings)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a response, without the tokens that end it, pad it, or start or end a turn. Other special tokens,
        such as ``<answer>`` in some tokenizers, are text (:func:`drpo.model.response_text.tokens_outside_text`).
        """
        kept = [token for token in token_ids if token not in self._outside_text]
        return self.tokenizer.decode(kept, skip_special_tokens=False)

    def response_logprobs(
        self, sequences: Sequence[Sequences], temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log π of every response token of ``sequences``, in order; where they have supports, of π renormalized over
        these, like the entropy.

        Returns:
            ``(logprobs, entropy)``, ``[N]`` each in nats; ``logprobs`` carries the gradient.
        """
        target = targets(sequences, self.device)
        if self.head is not None:
            support = supports(sequences, self.device)
            return token_logprobs(self.response_states(sequences), self.head, target, temperature, support=support)
        logprobs, entropy = self._distributions(sequences, temperature)
        return logprobs.gather(1, target.unsqueeze(1)).squeeze(1), entropy

    def response_states(self, sequences: Sequence[Sequences]) -> torch.Tensor:
        """``[N, H]``: the hidden states that predict the response tokens of ``sequences``, in order."""
        if self._prompts is not None:
            return self._prompts.states(sequences)

        def together(part: Sequence[Sequences]) -> torch.Tensor:
            with self.replaying(part):
                return response_states(self.model.base_model, part, self.way if self._first_regime(part) else PADDED)

        return in_groups(together, sequences, self._group)

    def _group(self, length: int) -> Hashable:
        """Sequences of one group may go through the model together."""
        return self.regimes.side(length), 0 if self.passes.pads else length

    def _first_regime(self, sequences: Sequence[Sequences]) -> bool:
        """Whether prompts of ``sequences`` have the rotary frequencies that the whole sequences have."""
        return not any(self.regimes.side(len(sequence)) for sequence in sequences)

    @contextmanager
    def prompts_once(self, sequences: Sequence[Sequences], max_tokens: int) -> Iterator[bool]:
        """Within it, the prompts of ``sequences`` have passed through the model once for all micro-batches, if they
        take at most ``max_tokens`` positions; says whether. Their share of the gradient is added at its end."""
        prompts = distinct_prompts(sequences)
        size = len(prompts) * max(len(prompt) for prompt in prompts)
        shares = self.way == SHARED and self._first_regime(sequences)
        if not shares or len(prompts) == len(sequences) or size > max_tokens:
            yield False
            return
        self._prompts = Prompts(self.model.base_model, prompts, detached=True)
        try:
            yield True
            self._prompts.backward()
        finally:
            self._prompts = None

    def topk_logprobs(
        self, sequences: Sequence[Sequences], temperature: float, topk_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`response_logprobs`, and log π of other tokens at the same positions.

        Holds whole distributions ``[N, V]``: smaller micro-batches make them fit.

        Args:
            sequences: prompts with their responses.
            temperature: logits are divided by it.
            topk_ids: ``[N, K]`` int64, tokens of the vocabulary for every response token of ``sequences``.

        Returns:
            ``(logprobs, entropy, topk_logprobs, topk_is_sampled)``, ``[N]``, ``[N]``, ``[N, K]`` and ``[N, K]``
            (bool: which of the other tokens is the sampled one). Outside a support log π is
            :data:`drpo.support.OUTSIDE`.
        """
        target = targets(sequences, self.device).unsqueeze(1)
        logprobs, entropy = self._distributions(sequences, temperature)
        topk_ids = topk_ids.to(self.device)
        topk = logprobs.gather(1, topk_ids)
        if any(sequence.support is not None for sequence in sequences):
            topk = topk.masked_fill(topk.detach() == -torch.inf, OUTSIDE)
        return logprobs.gather(1, target).squeeze(1), entropy, topk, topk_ids == target

    def _distributions(self, sequences: Sequence[Sequences], temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """log π ``[N, V]`` where the response tokens were drawn, −inf outside their supports, and its entropy
        ``[N]``."""
        if self.head is None:
            logits = in_groups(self._whole_logits, sequences, self._group)
        else:
            states = self.response_states(sequences)
            wide = wide_dtype(states)
            logits = states.to(wide) @ self.head.to(wide).T
        scaled = logits.float() / temperature
        if (support := supports(sequences, self.device)) is not None:
            support.check(targets(sequences, self.device), logits.shape[1])
            scaled = scaled.masked_fill(~support.mask(logits.shape[1]), -torch.inf)
        logprobs = scaled.log_softmax(-1)
        return logprobs, torch.distributions.Categorical(logits=logprobs.detach()).entropy()

    def _whole_logits(self, sequences: Sequence[Sequences]) -> torch.Tensor:
        """``[N, V]``: the model's logits where the response tokens of ``sequences`` were drawn."""
        ids, at = positions(sequences)
        with self.replaying(sequences):
            logits = self.model(input_ids=ids.to(self.device), **without_cache(self.model)).logits
        return at_places(logits, at.to(self.device))


def load_policy(
    name: str,
    device: torch.device,
    precision: Precision = "fp32",
    lora: Lora | None = None,
    recompute: bool = False,
    *,
    base: str | None = None,
    trust_remote_code: bool = False,
) -> Policy:
    """The policy stored in a Hugging Face directory, on the Hub (``org/name``), or embedded (``embedded:NAME``).

    It computes in ``precision``; what is trained is float32. A directory that holds an adapter (a checkpoint of a LoRA
    run, for example) gives its base with the adapter on it. :mod:`drpo.model.loading` says what is refused.

    Args:
        name: what the key ``model`` of a configuration holds.
        device: where the model goes.
        precision: what it computes in.
        lora: adapters that train instead of the model's own weights: fresh ones, or those of a checkpoint.
        recompute: gradient checkpointing.
        base: where the base of an adapter is, if not where the adapter says.
        trust_remote_code: run Python files that come with the model.

    Raises:
        ConfigError: there is no such model, it is damaged, incomplete or no causal LM, it lacks a tokenizer, or it does
            not take ``precision``, ``lora`` or ``recompute``. CheckpointError: an adapter does not fit its base.
    """
    loaded = load(name, base=base, trust_remote_code=trust_remote_code, trained=lora is not None)
    model = loaded.model
    if lora is not None and not is_adapted(model):
        add_adapter(model, lora, name if name.startswith("embedded:") else str(loaded.source.directory.resolve()))
    model.to(device)
    model.eval()
    if recompute:
        checkpoint_activations(model)
    passes = check_passes(model)  # before rounding hides differences
    masters = None if precision == "fp32" else MasterWeights(model, precision)
    return Policy(model, loaded.tokenizer, masters, loaded.source, loaded.notes, passes)


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a response: the tokenizer's, and those of the model's generation settings."""
    ids: set[int] = set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
    for config in (model.generation_config, model.config):
        value = getattr(config, "eos_token_id", None)
        ids.update(v for v in (value if isinstance(value, list | tuple) else [value]) if v is not None)
    if not ids:
        raise ConfigError(
            "model: neither tokenizer nor model names an end-of-sequence token, so that no response "
            "would ever stop. Set tokenizer.eos_token and save it again."
        )
    return frozenset(ids)
