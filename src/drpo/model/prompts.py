"""From a task's prompt to the token ids that a model is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drpo.errors import ConfigError, DataError

#: Arguments of `apply_chat_template` that are set here.
_OURS = (
    "conversation",
    "messages",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
)
#: Its arguments that a user may set; every other key is a variable of the template.
_THEIRS = ("chat_template", "tools", "documents")


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """How the tokenizer's chat template is used: a system turn before every prompt, and the template's variables.

    Raises:
        ConfigError: a variable is one that this package sets.
    """

    system_prompt: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.template_kwargs:
            if key in _OURS:
                raise ConfigError(
                    f"chat_template_kwargs.{key} cannot be set: a prompt is always complete and ends where the "
                    "response begins. Leave it out."
                )
        if self.system_prompt is not None:
            _check_text("system_prompt", self.system_prompt, ConfigError)

    @property
    def given(self) -> str | None:
        """The first setting that has a value."""
        return (
            "system_prompt"
            if self.system_prompt is not None
            else next((f"chat_template_kwargs.{key}" for key in self.template_kwargs), None)
        )


@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """Turns prompts into token ids.

    Args:
        tokenizer: of transformers.
        vocabulary: rows of the model's embedding; a prompt with a token beyond them is refused.
        settings: how its chat template is used.
    """

    tokenizer: Any
    vocabulary: int
    settings: PromptSettings = field(default_factory=PromptSettings)

    def encode(self, prompt: str, chat: bool = True, turns: Sequence[Mapping[str, str]] = ()) -> list[int]:
        """Token ids of a prompt, ready to be continued.

        Args:
            prompt: the text.
            chat: as a user's turn in the tokenizer's chat template with a generation prompt, if it has one, else the
                text and a line end. False: the text as it is.
            turns: the whole conversation ({role, content}, the last one the user's) instead of a single turn.

        Raises:
            DataError: the prompt has no token, one that the model has no row for, or half of a surrogate pair.
            ConfigError: the chat template refuses it, or a setting would be ignored.
        """
        _check_text("a prompt", prompt, DataError)
        if chat and self.tokenizer.chat_template:
            ids = self.tokenizer(self._rendered(prompt, turns), add_special_tokens=False, verbose=False)["input_ids"]
        else:
            if self.settings.given:
                why = "the tokenizer has no chat template" if chat else "the task gives prompts as plain text"
                raise ConfigError(f"{self.settings.given} would be ignored: {why}. Leave it out.")
            ids = _without_end(self.tokenizer, prompt + "\n" if chat else prompt)
        self._check_ids(ids, prompt)
        return ids

    @property
    def covers_tokenizer(self) -> bool:
        """Whether the model has a row for every token that the tokenizer can make."""
        return max(self.tokenizer.get_vocab().values(), default=-1) < self.vocabulary

    def _rendered(self, prompt: str, turns: Sequence[Mapping[str, str]]) -> str:
        """The prompt's text in the chat template."""
        conversation = [dict(turn) for turn in turns] or [{"role": "user", "content": prompt}]
        system, last = self.settings.system_prompt, conversation[-1]["content"].strip()
        if system is not None:
            if conversation[0]["role"] == "system":
                raise ConfigError(
                    "system_prompt is set, and the task's prompts begin with a system turn of their own. "
                    "Leave one of them out."
                )
            conversation.insert(0, {"role": "system", "content": system})
        text = self._apply(conversation)
        if last not in text:  # the templates of some multimodal models read lists of parts alone
            parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in conversation]
            text = self._apply(parts)
        for name, wanted in (("the prompt", last), ("system_prompt", (system or "").strip())):
            if wanted not in text:
                raise ConfigError(
                    f"the tokenizer's chat template drops {name}: its text does not hold it. Choose "
                    "another template with chat_template_kwargs.chat_template, or leave system_prompt "
                    "out and put its text into the prompts."
                )
        return text

    def _apply(self, conversation: list[dict[str, Any]]) -> str:
        tokenizer, variables = self.tokenizer, dict(self.settings.template_kwargs)
        try:
            template = tokenizer.get_chat_template(variables.get("chat_template"), variables.get("tools"))
            text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False, **variables)
        except Exception as error:  # a template may raise anything, and says in its own words what it misses
            raise ConfigError(
                f"the tokenizer's chat template refuses the prompt: {' '.join(str(error).split())}"
                f"{self._templates()} Give what it asks for: its variables with chat_template_kwargs, for example "
                "chat_template_kwargs.enable_thinking=false; a system turn with system_prompt=TEXT; one of several "
                "templates with chat_template_kwargs.chat_template=NAME."
            ) from error
        for key in variables:
            if key not in _THEIRS and not re.search(rf"\b{re.escape(key)}\b", template):
                raise ConfigError(
                    f"chat_template_kwargs.{key} would be ignored: the tokenizer's chat template does "
                    "not read it. Leave it out, or correct its name."
                )
        return text

    def _templates(self) -> str:
        templates = self.tokenizer.chat_template
        return f" (templates: {', '.join(sorted(templates))})." if isinstance(templates, dict) else "."

    def _check_ids(self, ids: Sequence[int], prompt: str) -> None:
        if not ids:
            raise DataError(
                f"the tokenizer makes no tokens from the prompt {prompt[:60]!r}. Give prompts that it knows "
                "the characters of."
            )
        if max(ids) >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise DataError(
                f"the tokenizer is larger than the model: the prompt {prompt[:60]!r} has token {max(ids)} "
                f"({token!r}), and the model's embedding has {self.vocabulary} rows. Use the tokenizer "
                "that belongs to the model, or resize its embedding (model.resize_token_embeddings)."
            )


def _without_end(tokenizer: Any, text: str) -> list[int]:
    """Token ids of ``text`` with what the tokenizer puts before it, and without what it puts behind: after an end of
    sequence there is nothing to continue."""
    whole = list(tokenizer(text, verbose=False)["input_ids"])
    bare = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if whole == bare or not bare:
        return bare
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[: start + len(bare)]
    if whole[-1] == tokenizer.eos_token_id:
        raise ConfigError(
            "model: its tokenizer appends an end-of-sequence token to every text, also to prompts. Save it with "
            "add_eos_token=False."
        )
    return whole


def _check_text(what: str, text: str, error: type[ConfigError] | type[DataError]) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as found:
        raise error(
            f"{what} holds half of a surrogate pair ({text[found.start]!r} at character {found.start}), which "
            f"is no text: {text[max(0, found.start - 20) : found.start + 20]!r}. Remove it, or write the "
            "whole character."
        ) from found
